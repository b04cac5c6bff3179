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
    let mut config =
        cbindgen::Config::from_file("cbindgen.toml").unwrap_or_else(|e| panic!("cbindgen.toml: {e}"));
    let version = env!("CARGO_PKG_VERSION");
    config.after_includes = Some(format!(
        "\n/* Version of the interface described here. */\n#define MPTCPAPI_VERSION \"{version}\""
    ));
    let mut builder = cbindgen::Builder::new().with_config(config);
    // Not the whole crate: its other constants are no business of C's.
    for file in ["types", "options", "addresses", "names", "stats", "subflows", "events", "also"] {
        builder = builder.with_src(format!("src/capi/{file}.rs"));
    }
    let bindings = builder.generate().unwrap_or_else(|e| panic!("cbindgen: {e}"));
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).unwrap_or_else(|e| panic!("cbindgen: {e}"));
    std::fs::write(&target, as_written(&text)).unwrap_or_else(|e| panic!("{target}: {e}"));
}

/// cbindgen prints every number in decimal; what the source has in hexadecimal
/// reads better so.
#[cfg(feature = "header")]
fn as_written(text: &str) -> String {
    let read = |name| {
        std::fs::read_to_string(format!("src/capi/{name}.rs")).unwrap_or_else(|e| panic!("{name}.rs: {e}"))
    };
    let source = read("types") + &read("events");
    let hex = |name: &str| {
        let line = source.lines().find(|line| line.starts_with(&format!("pub const {name}: ")))?;
        let value = line.split(" = ").nth(1)?.trim_end_matches(';');
        value.starts_with("0x").then(|| value.to_owned())
    };
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["#define", name, _] if hex(name).is_some() => {
                out += &format!("#define {name} {}", hex(name).unwrap_or_default());
            }
            _ => out += line.trim_end(),
        }
        out.push('\n');
    }
    out
}
