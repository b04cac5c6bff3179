// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds for every connection of the network namespace.

use super::endpoints::{Endpoint, Limits};
use super::event::Time;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// So many addresses are remembered as unusable, the latest ones: a host that
/// changes its addresses for ever must not fill memory, and trying one in vain
/// costs little.
const UNUSABLE_MAX: usize = 1024;

#[derive(Debug)]
pub struct Host {
    /// Addresses that can't be used now, and since which count.
    unusable: HashMap<IpAddr, u64>,
    count: u64,
    /// How long a connection lives without any subflow.
    pub close_timeout: Option<Time>,
    /// `None` before anybody told.
    endpoints: Option<Vec<Endpoint>>,
    pub limits: Limits,
    /// Connections that nobody claimed are ours to serve.
    pub serve: bool,
}

impl Default for Host {
    fn default() -> Self {
        // As the kernel's own (net.mptcp.close_timeout).
        Self {
            unusable: HashMap::new(),
            count: 0,
            close_timeout: Some(Time::from_secs(60)),
            endpoints: None,
            limits: Limits::default(),
            serve: false,
        }
    }
}

impl Host {
    /// Whether a subflow can use this local address now.
    pub fn usable(&self, local: &SocketAddr) -> bool {
        self.unusable.is_empty() || !self.unusable.contains_key(&local.ip().to_canonical())
    }

    /// The endpoints, in their order.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }

    /// Whether anybody told of endpoints.
    pub fn knows_endpoints(&self) -> bool {
        self.endpoints.is_some()
    }

    /// Notes the endpoints and gives those that were.
    pub fn set_endpoints(&mut self, endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
        self.endpoints.replace(endpoints).unwrap_or_default()
    }

    /// Notes that an address can't be used.
    pub fn lose(&mut self, addr: IpAddr) {
        self.count += 1;
        self.unusable.insert(addr.to_canonical(), self.count);
        if self.unusable.len() > UNUSABLE_MAX
            && let Some(oldest) = self.unusable.iter().min_by_key(|(_, since)| **since).map(|(addr, _)| *addr)
        {
            self.unusable.remove(&oldest);
        }
    }

    /// Notes that it can.
    pub fn regain(&mut self, addr: IpAddr) {
        self.unusable.remove(&addr.to_canonical());
    }
}
