// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives the cdylib its soname, and writes include/mptcp.h when asked to
//! (feature `header`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmptcpapi.so.0");
    // Threads that used the library may end after dlclose(3).
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    #[cfg(feature = "header")]
    header();
}

/// MPTCPAPI_HEADER names another file to write to: the drift check's.
#[cfg(feature = "header")]
fn header() {
    println!("cargo::rerun-if-changed=src/capi");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    println!("cargo::rerun-if-env-changed=MPTCPAPI_HEADER");
    let target = std::env::var("MPTCPAPI_HEADER").unwrap_or_else(|_| "include/mptcp.h".into());
    let mut builder = cbindgen::Builder::new().with_config(match cbindgen::Config::from_file("cbindgen.toml") {
        Ok(config) => config,
        Err(error) => panic!("cbindgen.toml: {error}"),
    });
    // Not the whole crate: its other constants are no business of C's.
    for file in ["types", "options", "addresses", "also"] {
        builder = builder.with_src(format!("src/capi/{file}.rs"));
    }
    match builder.generate() {
        Ok(bindings) => {
            bindings.write_to_file(target);
        }
        Err(error) => panic!("cbindgen: {error}"),
    }
}
