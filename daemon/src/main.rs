// SPDX-License-Identifier: MIT OR Apache-2.0
//! mptcpapid: lets ordinary programs control the paths of their own Multipath
//! TCP connections. See mptcpapid(8).

mod broker;
mod crew;
mod journal;
mod links;
mod log;
mod policy;
mod subscriptions;
mod turns;
mod warden;

use broker::{Broker, Start};
use journal::Journal;
use log::log;
use mptcpapi::Errno;
use mptcpapi::kernel::latch::Latch;
use mptcpapi::kernel::{pm, service, sockopt, unix};
use mptcpapi::manager::{Hands, Manager};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use policy::Policy;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

const USAGE: &str = "usage: mptcpapid [--socket PATH] [--config FILE] [--state DIRECTORY] [--manage]
       mptcpapid --check-config [--config FILE]
       mptcpapid --repair
       mptcpapid --help | --version";
const HELP: &str = "
  --socket PATH       listen here (default /run/mptcpapi/broker.sock; '@' in front
                      for a name without a file)
  --config FILE       the policy (default /etc/mptcpapi/mptcpapid.conf, if there)
  --state DIRECTORY   keep the journal here (default: beside the socket)
  --manage            put the network namespace in userspace mode and serve every
                      connection in it
  --repair            undo what one that was killed left half done, and end
  --event-buffer N    bytes of events that may wait (for tests)
  --check-config      read the policy, say what is wrong with it, and end
";

struct Options {
    socket: PathBuf,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    manage: bool,
    check: bool,
    repair: bool,
    event_buffer: usize,
}

const CONFIG: &str = "/etc/mptcpapi/mptcpapid.conf";

fn options() -> Result<Option<Options>, String> {
    let mut options = Options {
        socket: mptcpapi::BROKER_SOCKET.into(),
        config: None,
        state: None,
        manage: false,
        check: false,
        repair: false,
        event_buffer: 8 << 20,
    };
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        };
        let mut value = || match &inline {
            Some(value) => Ok(value.into()),
            None => words.next().ok_or(format!("{name} needs a value\n{USAGE}")),
        };
        match name.as_str() {
            "--socket" => options.socket = value()?.into(),
            "--config" => options.config = Some(value()?.into()),
            "--state" => options.state = Some(value()?.into()),
            "--event-buffer" => {
                let text = value()?;
                let number = text.to_str().and_then(|text| text.parse().ok());
                options.event_buffer = number.ok_or(format!("--event-buffer: {text:?} is no number"))?;
            }
            "--manage" if inline.is_none() => options.manage = true,
            "--repair" if inline.is_none() => options.repair = true,
            "--check-config" if inline.is_none() => options.check = true,
            "--help" | "-h" => {
                print!("{USAGE}\n{HELP}");
                return Ok(None);
            }
            "--version" | "-V" => {
                println!("mptcpapid {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            _ => return Err(format!("{name}: no such option\n{USAGE}")),
        }
    }
    Ok(Some(options))
}

fn policy(options: &Options) -> Result<Policy, String> {
    let mut policy = match &options.config {
        Some(path) => Policy::read(path)?,
        None => match std::fs::symlink_metadata(CONFIG) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Policy::default(),
            // One that can't be reached isn't taken for none.
            _ => Policy::read(CONFIG.as_ref())?,
        },
    };
    policy.manage |= options.manage;
    policy.learn_subordinates(&std::fs::read_to_string(policy::SUBUID).unwrap_or_default());
    Ok(policy)
}

/// Where the journal stands; nowhere for a socket without a file.
fn state_directory(options: &Options) -> Option<PathBuf> {
    let nameless = options.socket.as_os_str().as_encoded_bytes().starts_with(b"@");
    let beside = || options.socket.parent().filter(|_| !nameless).map(PathBuf::from);
    options.state.clone().or_else(beside)
}

/// What systemd has kept or opened for us.
#[derive(Default)]
struct Given {
    listener: Option<OwnedFd>,
    events: Option<OwnedFd>,
}

fn given() -> Given {
    let mut given = Given::default();
    for (name, fd) in service::listen_fds() {
        match name.as_str() {
            EVENTS => given.events = Some(fd),
            _ if given.listener.is_none() => given.listener = Some(fd),
            _ => log!(Warning, "a descriptor named {name} is of no use"),
        }
    }
    given
}

const NO_PRIVILEGE: &str = "CAP_NET_ADMIN over this network namespace is needed";

/// Name of the event socket in systemd's store: while it is open joins go on.
const EVENTS: &str = "events";

/// The event socket from before a restart, else a new one.
fn events(given: Option<OwnedFd>, family: pm::Family, buffer: usize) -> Result<(pm::Events, bool), String> {
    if let Some(fd) = given {
        match pm::Events::from_fd(fd, family) {
            Ok(events) => return Ok((events, true)),
            Err(errno) => log!(Warning, "the event socket that was kept is of no use: {errno}"),
        }
    }
    let events = pm::Events::open_with(family, buffer);
    events.map(|events| (events, false)).map_err(|errno| match errno {
        Errno(libc::EPERM) => NO_PRIVILEGE.to_owned(),
        errno => format!("listening to path-manager events: {errno}"),
    })
}

fn run(options: Options, policy: Policy) -> Result<(), String> {
    let words = |e: mptcpapi::Error| e.to_string();
    let mut handled = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        handled.add(signal);
    }
    handled.thread_block().map_err(|e| e.to_string())?;
    let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|e| e.to_string())?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| e.to_string())?;
    let epoll = Arc::new(epoll);
    let namespace = sockopt::thread_netns().unwrap_or(0);
    let given = given();
    let handed = given.listener.is_some();
    let listener = match given.listener {
        Some(listener) => {
            let is =
                |option, value| sockopt::get_int(listener.as_fd(), libc::SOL_SOCKET, option) == Ok(value);
            if !(is(libc::SO_DOMAIN, libc::AF_UNIX)
                && is(libc::SO_TYPE, libc::SOCK_SEQPACKET)
                && is(libc::SO_ACCEPTCONN, 1))
            {
                return Err(
                    "the socket that was passed is no listening Unix socket of sequenced packets".into()
                );
            }
            let flags = sockopt::fcntl(listener.as_fd(), libc::F_GETFL, 0).unwrap_or(0);
            sockopt::fcntl(listener.as_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
                .map_err(|errno| format!("the socket that was passed: {errno}"))?;
            listener
        }
        None => {
            let path = &options.socket;
            if let Some(parent) = path.parent().filter(|_| path == Path::new(mptcpapi::BROKER_SOCKET)) {
                // Where it can't be made, listening fails and says so.
                let _ = std::fs::DirBuilder::new().mode(0o755).create(parent);
            }
            unix::listen(path, 0o666).map_err(|errno| format!("listening on {}: {errno}", path.display()))?
        }
    };
    let journal = state_directory(&options).map(|at| Journal::open(&at, namespace)).transpose();
    let journal = journal.inspect_err(|_| {
        if !handed {
            // Nobody will answer there.
            let _ = std::fs::remove_file(&options.socket);
        }
    })?;
    // A descriptor for each client and each socket that is being looked at.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    service::keep_net_admin_only().map_err(|errno| match errno {
        Errno(libc::EPERM) => NO_PRIVILEGE.to_owned(),
        errno => format!("giving up privileges: {errno}"),
    })?;
    let mut look = Hands::open(namespace, true).map_err(words)?;
    if look.in_userspace_mode() {
        log!(Info, "this network namespace is in userspace mode");
    }
    let (events, kept) = events(given.events, look.family(), options.event_buffer)?;
    if !kept {
        let _ = service::notify(&format!("FDSTORE=1\nFDNAME={EVENTS}"), &[events.as_fd()]);
    }
    let manager = Manager::with_events(namespace, events).map_err(words)?;
    // Anybody can have that name: so it is told, and no more.
    let alone = unix::claim(NAMESAKE.as_ref());
    if matches!(alone, Err(Errno(libc::EADDRINUSE))) {
        log!(Warning, "another broker seems to serve this network namespace too");
    }
    log!(Info, "serving on {}", options.socket.display());
    let name = journal::checksum(options.socket.as_os_str().as_encoded_bytes()) as u16;
    let reread = Box::new(move || self::policy(&options));
    let start = Start { manager, look, policy, reread, listener, signals, journal, name };
    let broker = Broker::new(start, Arc::clone(&epoll)).map_err(words)?;
    let _ = service::notify("READY=1", &[]);
    crew::sail(broker, epoll, namespace)?;
    let _ = service::notify("STOPPING=1", &[]);
    log!(Info, "stopped");
    Ok(())
}

/// The path manager of the namespace, where one that was killed had just
/// switched it: who starts next would see to that too.
fn repair() -> Result<(), String> {
    let namespace = sockopt::thread_netns().unwrap_or(0);
    let repaired = Latch::open(namespace).and_then(|mut latch| latch.repair());
    repaired.map_err(|fault| format!("the path manager's switch: {}", mptcpapi::manager::fault(fault)))
}

/// The name in the network namespace that its brokers have. Two that serve
/// one namespace do each what its own programs ask; but userspace mode, which
/// is for all, they would take from each other.
const NAMESAKE: &str = "@mptcpapid";

fn main() -> ExitCode {
    service::one_heap();
    // The journal and systemd see to a fresh start; one thread less would be
    // seen to by nobody.
    std::panic::set_hook(Box::new(|panic| {
        log!(Error, "a bug: {panic}");
        std::process::abort();
    }));
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("mptcpapid: {words}");
            return ExitCode::from(2);
        }
    };
    if options.repair {
        return match repair() {
            Ok(()) => ExitCode::SUCCESS,
            Err(words) => {
                log!(Error, "{words}");
                ExitCode::FAILURE
            }
        };
    }
    let policy = match policy(&options) {
        Ok(policy) => policy,
        Err(words) => {
            log!(Error, "{words}");
            return ExitCode::from(2);
        }
    };
    if options.check {
        return ExitCode::SUCCESS;
    }
    match run(options, policy) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            log!(Error, "{words}");
            ExitCode::FAILURE
        }
    }
}
