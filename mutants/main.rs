//! Puts the changes of `cargo mutants --list --json` into the sources, all at once, each behind a
//! switch: `mutants LIST TREE LIBRARY LEFT_OUT MAP`.
//!
//! LIST is that list; a change is known by its place in it. TREE has the sources that its paths
//! speak of, and they are written anew there. LIBRARY is the crate's lib.rs within TREE: it gets
//! the switch. LEFT_OUT is a JSON list of changes that are not put in. MAP is written: what became
//! of each change, and where, so that the compiler's complaints can be told apart (mutants/run.py).

mod place;
mod weave;

use place::Lines;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use weave::{Change, Kind};

/// Features of the compiler that the switch needs: it is asked in constant functions too.
const FEATURES: &str =
    "#![feature(core_intrinsics, const_eval_select)]\n#![allow(internal_features)]\n";
const SWITCH: &str = include_str!("switch.rs");

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [list, tree, library, left_out, map] = arguments.as_slice() else {
        return Err("usage: mutants LIST TREE LIBRARY LEFT_OUT MAP".into());
    };
    let list: Vec<Value> = serde_json::from_str(&fs::read_to_string(list)?)?;
    let left_out: HashSet<u64> = serde_json::from_str(&fs::read_to_string(left_out)?)?;
    let tree = Path::new(tree);

    let mut files: BTreeMap<&str, Vec<(u64, &Value)>> = BTreeMap::new();
    for (number, change) in (0..).zip(&list) {
        if !left_out.contains(&number) {
            files.entry(text(change, "file")?).or_default().push((number, change));
        }
    }
    // The library gets the switch even if nothing in it changes.
    files.entry(library).or_default();

    let mut ranges = Vec::new();
    let mut without_place = Vec::new();
    for (file, listed) in files {
        let path = tree.join(file);
        let source =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = Lines::of(&source);
        let changes = listed.iter().map(|(number, change)| change_of(*number, change, &lines));
        let woven = weave::weave(&source, changes.collect::<Result<_, _>>()?)?;
        let before = if file == library { FEATURES.len() } else { 0 };
        ranges.extend(woven.ranges.iter().map(|range| {
            json!({"file": file, "change": range.change, "is_arm": range.is_arm,
                "start": range.bytes.start + before, "end": range.bytes.end + before})
        }));
        without_place.extend(woven.without_place);
        let text =
            if file == library { format!("{FEATURES}{}{SWITCH}", woven.text) } else { woven.text };
        fs::write(&path, text)?;
    }
    fs::write(map, json!({"ranges": ranges, "without_place": without_place}).to_string())?;
    Ok(())
}

fn change_of(number: u64, listed: &Value, lines: &Lines) -> Result<Change, Box<dyn Error>> {
    let span = &listed["span"];
    let at = |end: &str| -> Result<usize, Box<dyn Error>> {
        let number_of =
            |name: &str| span[end][name].as_u64().ok_or_else(|| format!("no {name} in {listed}"));
        Ok(lines.byte(number_of("line")? as usize, number_of("column")? as usize)?)
    };
    let genre = text(listed, "genre")?;
    Ok(Change {
        number,
        kind: match genre {
            "FnValue" => Kind::Body,
            "BinaryOperator" => Kind::Binary,
            "UnaryOperator" => Kind::Unary,
            "MatchArm" => Kind::Arm,
            "MatchArmGuard" => Kind::Guard,
            "StructField" => Kind::Field,
            _ => return Err(format!("unknown kind of change: {genre}").into()),
        },
        bytes: at("start")?..at("end")?,
        replacement: text(listed, "replacement")?.to_owned(),
    })
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Box<dyn Error>> {
    Ok(value[name].as_str().ok_or_else(|| format!("no {name} in {value}"))?)
}
