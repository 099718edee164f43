//! Asks apxs where httpd's headers are, compiles the C shim against them and
//! generates the bindings that `src/ffi` wraps.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs, panic};

/// httpd 2.4, of which a module's major magic number must be that of its server.
const MAGIC_MAJOR: u32 = 20_120_211;
/// The minor one of 2.4.47, which brought the tunnel into mod_proxy_http.
const MAGIC_MINOR: u32 = 99;

const DEVELOPMENT_FILES: &str = "install httpd's development files (Debian: apt install apache2-dev; \
                                 RHEL: dnf install httpd-devel) or set APXS=/path/to/apxs";

fn main() {
    for input in ["include/httpd_api.h", "include/shim.h", "apxs/shim.c", "build.rs"] {
        println!("cargo:rerun-if-changed={input}");
    }
    println!("cargo:rerun-if-env-changed=APXS");

    if env::var("CARGO_CFG_TARGET_POINTER_WIDTH").is_ok_and(|width| width != "64") {
        fail("mod_wsforward is made for 64-bit systems only");
    }
    let apxs = Apxs::find();
    let mut flags = apxs.words("EXTRA_CPPFLAGS");
    flags.extend(apxs.words("EXTRA_INCLUDES"));
    let headers = apxs.query("INCLUDEDIR");
    check_version(Path::new(&headers));
    check_apr(&flags);
    flags.push(format!("-I{headers}"));
    flags.push("-Iinclude".to_owned());

    let mut shim = cc::Build::new();
    shim.file("apxs/shim.c").warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    if let Err(error) = shim.try_compile("wsf_shim") {
        fail(&format!("the C compiler fails (Debian: apt install gcc libc6-dev): {error}"));
    }

    let builder = bindgen::Builder::default()
        .header("include/httpd_api.h")
        .clang_args(&flags)
        .allowlist_function("(ap|apr|wsf)_.*")
        .allowlist_type("(ap|apr|proxy|wsf)_.*|module|module_struct|command_rec|cmd_parms.*|request_rec|conn_rec|server_rec")
        .allowlist_var("(AP|APR|APLOG|MODULE|RSRC|ACCESS|OR|PROXYREQ|HTTP|M|OK|DECLINED|DONE|CONN|GLOBAL|EXEC|NOT)_.*|OK|DECLINED|DONE|M_GET|ap_.*|apr_hook_debug_current")
        .prepend_enum_name(false)
        .derive_debug(false)
        .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
        .layout_tests(false)
        .generate_comments(false);
    // Without libclang it panics, with lines about paths and variables.
    panic::set_hook(Box::new(|_| {}));
    let bindings = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    let _ = panic::take_hook();
    let bindings = match bindings {
        Ok(Ok(bindings)) => bindings,
        Ok(Err(error)) => fail(&format!("bindgen cannot read httpd's headers: {error}")),
        Err(_) => fail(
            "bindgen needs libclang (Debian: apt install libclang-dev; RHEL: dnf install clang-devel)",
        ),
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
        fail(&format!("apxs not found: {DEVELOPMENT_FILES}"))
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
            Err(error) => {
                fail(&format!("cannot run APXS={}: {error}: {DEVELOPMENT_FILES}", self.0))
            }
        }
    }

    fn words(&self, variable: &str) -> Vec<String> {
        self.query(variable).split_whitespace().map(str::to_owned).collect()
    }
}

/// Ends the build for headers of an httpd that the module cannot be loaded into.
fn check_version(headers: &Path) {
    let file = headers.join("ap_mmn.h");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| {
        fail(&format!("cannot read {}: {error}: {DEVELOPMENT_FILES}", file.display()))
    });
    let number = |name: &str| {
        let mut words = text
            .lines()
            .find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name))?
            .split_whitespace();
        words.next()?.parse::<u32>().ok()
    };
    match (number("MODULE_MAGIC_NUMBER_MAJOR "), number("MODULE_MAGIC_NUMBER_MINOR ")) {
        (Some(MAGIC_MAJOR), Some(MAGIC_MINOR..)) => {}
        (Some(MAGIC_MAJOR), _) => {
            fail("this httpd is older than 2.4.47, which mod_wsforward needs")
        }
        _ => fail("this httpd is not of version 2.4, for which mod_wsforward is made"),
    }
}

/// Ends the build where APR's headers, packages of their own, are missing: the C compiler is not to
/// blame. apxs names their directories (EXTRA_INCLUDES).
fn check_apr(flags: &[String]) {
    for (header, packages) in [
        ("apr.h", "Debian: apt install libapr1-dev; RHEL: dnf install apr-devel"),
        ("apu.h", "Debian: apt install libaprutil1-dev; RHEL: dnf install apr-util-devel"),
    ] {
        let named = flags.iter().filter_map(|flag| flag.strip_prefix("-I"));
        let mut places = named.chain(["/usr/include", "/usr/local/include"]).map(Path::new);
        if !places.any(|place| place.join(header).is_file()) {
            fail(&format!(
                "APR's {header} is in none of the directories that apxs names: install it ({packages})"
            ));
        }
    }
}

/// Ends the build with one line: cargo shows what a script that failed wrote.
fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(1)
}
