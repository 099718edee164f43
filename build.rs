//! Asks apxs where httpd's headers are, compiles the C shim against them and
//! generates the bindings that `src/ffi` wraps.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

fn main() {
    for input in ["include/httpd_api.h", "include/shim.h", "apxs/shim.c", "build.rs"] {
        println!("cargo:rerun-if-changed={input}");
    }
    println!("cargo:rerun-if-env-changed=APXS");

    let apxs = Apxs::find();
    let mut flags = apxs.words("EXTRA_CPPFLAGS");
    flags.extend(apxs.words("EXTRA_INCLUDES"));
    flags.push(format!("-I{}", apxs.query("INCLUDEDIR")));
    flags.push("-Iinclude".to_owned());

    let mut shim = cc::Build::new();
    shim.file("apxs/shim.c").warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    shim.compile("wsf_shim");

    let bindings = bindgen::Builder::default()
        .header("include/httpd_api.h")
        .clang_args(&flags)
        .allowlist_function("(ap|apr|wsf)_.*")
        .allowlist_type("(ap|apr|proxy|wsf)_.*|module|module_struct|command_rec|cmd_parms.*|request_rec|conn_rec|server_rec")
        .allowlist_var("(AP|APR|APLOG|MODULE|RSRC|ACCESS|OR|PROXYREQ|HTTP|M|OK|DECLINED|DONE|CONN|GLOBAL|EXEC|NOT)_.*|OK|DECLINED|DONE|M_GET|ap_.*")
        .prepend_enum_name(false)
        .derive_debug(false)
        .layout_tests(false)
        .generate_comments(false)
        .generate();
    let Ok(bindings) = bindings else {
        fail(
            "bindgen could not read httpd's headers; it needs libclang (Debian: apt install libclang-dev)",
        );
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("httpd_api.rs");
    if let Err(error) = bindings.write_to_file(&out) {
        fail(&format!("cannot write {}: {error}", out.display()));
    }
}

/// httpd's own description of how modules are built for it.
struct Apxs(String);

impl Apxs {
    fn find() -> Self {
        if let Ok(named) = env::var("APXS") {
            return Self(named);
        }
        for name in ["apxs", "apxs2", "/usr/sbin/apxs", "/usr/local/apache2/bin/apxs"] {
            if Command::new(name)
                .args(["-q", "INCLUDEDIR"])
                .output()
                .is_ok_and(|o| o.status.success())
            {
                return Self(name.to_owned());
            }
        }
        fail(
            "apxs not found: install httpd's development files (Debian: apt install apache2-dev; \
             RHEL: dnf install httpd-devel) or set APXS=/path/to/apxs",
        )
    }

    fn query(&self, variable: &str) -> String {
        match Command::new(&self.0).args(["-q", variable]).output() {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            }
            Ok(output) => fail(&format!(
                "{} -q {variable}: {}",
                self.0,
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => fail(&format!("cannot run APXS={}: {error}", self.0)),
        }
    }

    fn words(&self, variable: &str) -> Vec<String> {
        self.query(variable).split_whitespace().map(str::to_owned).collect()
    }
}

fn fail(why: &str) -> ! {
    println!("cargo:warning={why}");
    eprintln!("error: {why}");
    exit(1)
}
