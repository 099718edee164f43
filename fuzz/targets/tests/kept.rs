//! What fuzzing found worth keeping, on any toolchain: the corpora, and what once failed.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::ALL;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// What is in a folder; nothing if there is none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let (_, target) = ALL.iter().find(|(other, _)| *other == name).expect("a target");
    target(b"");
    let mut count = 0;
    for kind in ["corpus", "crashes"] {
        for path in files(&folder(kind).join(name)) {
            // It is shown if this one fails.
            println!("{}", path.display());
            target(&fs::read(&path).expect("a file"));
            count += 1;
        }
    }
    assert!(count > 5, "{name} has a corpus");
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn each_target_is_here() {
            let names = [$(stringify!($name)),*];
            assert_eq!(ALL.map(|(name, _)| name), names);
            for (kind, ending) in [("fuzz_targets", ".rs"), ("corpus", "")] {
                let paths = files(&folder(kind));
                let found: Vec<_> =
                    paths.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                assert_eq!(found, names.map(|name| format!("{name}{ending}")), "{kind}");
            }
        }
    };
}

replays!(
    directives, frames, freeze, handshake, head, origin, records, sessions, shared, status, thaw,
    upgrade
);
