//! The text of a source in which every change can be switched on.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// What `cargo mutants` would do at one place.
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// What it would write anew, or where it would begin to.
    pub(crate) bytes: Range<usize>,
    pub(crate) replacement: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A function that returns something at once.
    Body,
    /// Another operator between two expressions.
    Binary,
    /// An operator before an expression left out.
    Unary,
    /// An arm of a `match` left out.
    Arm,
    /// The guard of an arm always true, or never.
    Guard,
    /// A field of a structure left to what `..` gives.
    Field,
}

pub(crate) struct Woven {
    pub(crate) text: String,
    pub(crate) ranges: Vec<Place>,
    /// Changes that no place was found for: the text is without them.
    pub(crate) without_place: Vec<u64>,
}

/// Bytes of the text that are there for a change.
pub(crate) struct Place {
    pub(crate) change: u64,
    pub(crate) bytes: Range<usize>,
    /// Not the change itself: the value whose `match` has one arm less.
    pub(crate) is_arm: bool,
}

/// The source with these changes in it.
pub(crate) fn weave(source: &str, changes: Vec<Change>) -> Result<Woven, syn::Error> {
    let file = syn::parse_file(source)?;
    let mut finder =
        Finder { source, waiting: HashMap::new(), bodies: Vec::new(), pieces: Vec::new() };
    let mut bodies = Vec::new();
    let mut unplaced: HashSet<u64> = changes.iter().map(|change| change.number).collect();
    for change in changes {
        match change.kind {
            Kind::Body => bodies.push(change),
            kind => finder.waiting.entry((kind, change.bytes.start)).or_default().push(change),
        }
    }
    finder.visit_file(&file);
    let Finder { bodies: blocks, mut pieces, .. } = finder;
    for change in bodies {
        // The innermost.
        let around = blocks
            .iter()
            .filter(|block| block.start < change.bytes.start && change.bytes.end <= block.end);
        if let Some(block) = around.min_by_key(|block| block.len()) {
            let switch = switch(change.number);
            let text = format!(" if {switch} {{ return {}; }}", change.replacement);
            pieces.push(Piece::insert(block.start + 1, Some(change.number), text));
        }
    }
    for piece in &pieces {
        match &piece.what {
            What::Insert { change, .. } => {
                change.map(|change| unplaced.remove(&change));
            }
            What::Choose(variants) => variants.iter().for_each(|variant| {
                unplaced.remove(&variant.change);
            }),
        }
    }
    // An outer one before what is in it; what is inserted before what begins there.
    pieces.sort_by_key(|piece| {
        (piece.bytes.start, matches!(piece.what, What::Choose(_)), usize::MAX - piece.bytes.end)
    });
    let mut writer = Writer { source, text: String::new(), ranges: Vec::new() };
    writer.write(0..source.len(), &pieces);
    let mut without_place: Vec<u64> = unplaced.into_iter().collect();
    without_place.sort_unstable();
    Ok(Woven { text: writer.text, ranges: writer.ranges, without_place })
}

fn switch(change: u64) -> String {
    format!("crate::mutation::is_on({change})")
}

/// A place of the source that is written in another way.
struct Piece {
    bytes: Range<usize>,
    what: What,
}

enum What {
    /// `is_arm` as of [`Place`].
    Insert { change: Option<u64>, text: String, is_arm: bool },
    /// One of several texts instead, by the switch that is on.
    Choose(Vec<Variant>),
}

struct Variant {
    change: u64,
    text: String,
}

impl Piece {
    fn insert(at: usize, change: Option<u64>, text: String) -> Piece {
        Piece { bytes: at..at, what: What::Insert { change, text, is_arm: false } }
    }
}

/// Looks for the places of changes.
struct Finder<'a> {
    source: &'a str,
    /// Changes by their kind and first byte.
    waiting: HashMap<(Kind, usize), Vec<Change>>,
    /// Of functions, with the braces.
    bodies: Vec<Range<usize>>,
    pieces: Vec<Piece>,
}

impl Finder<'_> {
    fn take(&mut self, kind: Kind, at: usize) -> Vec<Change> {
        self.waiting.remove(&(kind, at)).unwrap_or_default()
    }

    /// Instead of the bytes of `whole`, they with `part` replaced, for each of the changes.
    fn choose(&mut self, whole: Range<usize>, part: Range<usize>, changes: Vec<Change>) {
        let (before, behind) =
            (&self.source[whole.start..part.start], &self.source[part.end..whole.end]);
        let variants = changes.into_iter().map(|change| Variant {
            change: change.number,
            text: format!("{before}{}{behind}", change.replacement),
        });
        let variants: Vec<_> = variants.collect();
        if !variants.is_empty() {
            self.pieces.push(Piece { bytes: whole, what: What::Choose(variants) });
        }
    }
}

/// Whether it has a `let` that only an `if` may have around it.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_block(&mut self, block: &'ast syn::Block) {
        // Of functions and of whatever else: only the innermost around a body counts, which begins right
        // behind the brace.
        self.bodies
            .push(block.brace_token.span.open().byte_range().start..block.span().byte_range().end);
        visit::visit_block(self, block);
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let operator = binary.op.span().byte_range();
        let changes = self.take(Kind::Binary, operator.start);
        if !has_let(&binary.left) && !has_let(&binary.right) {
            self.choose(binary.span().byte_range(), operator, changes);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let operator = unary.op.span().byte_range();
        let changes = self.take(Kind::Unary, operator.start);
        self.choose(unary.span().byte_range(), operator, changes);
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_match(&mut self, expression: &'ast syn::ExprMatch) {
        let value = expression.expr.span().byte_range();
        for arm in &expression.arms {
            let start = arm.span().byte_range().start;
            for change in self.take(Kind::Arm, start) {
                let switch = switch(change.number);
                let number = Some(change.number);
                match &arm.guard {
                    None => {
                        let behind = arm.pat.span().byte_range().end;
                        self.pieces.push(Piece::insert(behind, number, format!(" if !{switch}")));
                    }
                    Some((_, guard)) if has_let(guard) => continue,
                    Some((_, guard)) => {
                        let guard = guard.span().byte_range();
                        self.pieces.push(Piece::insert(
                            guard.start,
                            number,
                            format!("!{switch} && ("),
                        ));
                        self.pieces.push(Piece::insert(guard.end, None, ")".to_owned()));
                    }
                }
                let marker = What::Insert { change: number, text: String::new(), is_arm: true };
                self.pieces.push(Piece { bytes: value.start..value.start, what: marker });
            }
            if let Some((_, guard)) = &arm.guard {
                let bytes = guard.span().byte_range();
                let changes = self.take(Kind::Guard, bytes.start);
                if !has_let(guard) {
                    self.choose(bytes.clone(), bytes, changes);
                }
            }
        }
        visit::visit_expr_match(self, expression);
    }

    fn visit_expr_struct(&mut self, structure: &'ast syn::ExprStruct) {
        for field in &structure.fields {
            let changes = self.take(Kind::Field, field.span().byte_range().start);
            // A field that is written by its name alone has no expression of its own to write anew.
            if let (Some(rest), Some(_), syn::Member::Named(name)) =
                (&structure.rest, field.colon_token, &field.member)
            {
                let rest = &self.source[rest.span().byte_range()];
                let variants = changes.iter().map(|change| Variant {
                    change: change.number,
                    text: format!("({rest}).{name}"),
                });
                let variants: Vec<_> = variants.collect();
                if !variants.is_empty() {
                    self.pieces.push(Piece {
                        bytes: field.expr.span().byte_range(),
                        what: What::Choose(variants),
                    });
                }
            }
        }
        visit::visit_expr_struct(self, structure);
    }

    // Constants, lengths and patterns are the compiler's: no switch changes them while a test runs.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_variant(&mut self, _: &'ast syn::Variant) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }
}

struct Writer<'a> {
    source: &'a str,
    text: String,
    ranges: Vec<Place>,
}

impl Writer<'_> {
    /// These bytes of the source, with the pieces that lie in them.
    fn write(&mut self, bytes: Range<usize>, pieces: &[Piece]) {
        let mut at = bytes.start;
        let mut pieces = pieces;
        while let [piece, rest @ ..] = pieces {
            self.text.push_str(&self.source[at..piece.bytes.start]);
            at = piece.bytes.end;
            match &piece.what {
                What::Insert { change, text, is_arm } => {
                    self.note(*change, text, *is_arm);
                    pieces = rest;
                }
                What::Choose(variants) => {
                    let inner = rest.partition_point(|other| other.bytes.start < piece.bytes.end);
                    self.text.push('(');
                    for variant in variants {
                        self.text.push_str(&format!("if {} {{ ", switch(variant.change)));
                        self.note(Some(variant.change), &variant.text, false);
                        self.text.push_str(" } else ");
                    }
                    self.text.push_str("{ ");
                    self.write(piece.bytes.clone(), &rest[..inner]);
                    self.text.push_str(" })");
                    pieces = &rest[inner..];
                }
            }
        }
        self.text.push_str(&self.source[at..bytes.end]);
    }

    fn note(&mut self, change: Option<u64>, text: &str, is_arm: bool) {
        let start = self.text.len();
        self.text.push_str(text);
        if let Some(change) = change {
            self.ranges.push(Place { change, bytes: start..self.text.len(), is_arm });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that a source becomes by one change at the first `at` in it.
    fn woven(source: &str, kind: Kind, at: &str, replacement: &str) -> String {
        let start = source.find(at).unwrap();
        let bytes = start..start + at.len();
        let change = Change { number: 7, kind, bytes, replacement: replacement.to_owned() };
        let woven = weave(source, vec![change]).unwrap();
        assert_eq!(woven.without_place.is_empty(), woven.text != source);
        for place in woven.ranges.iter().filter(|place| !place.is_arm) {
            assert!(woven.text[place.bytes.clone()].contains(replacement));
        }
        woven.text.replace("crate::mutation::is_on(7)", "M")
    }

    #[test]
    fn both_texts_of_an_expression() {
        let text = woven("fn f(a: u8, b: u8) -> bool { a + 1 < b }", Kind::Binary, "<", ">=");
        assert_eq!(text, "fn f(a: u8, b: u8) -> bool { (if M { a + 1 >= b } else { a + 1 < b }) }");
        let text = woven("fn f(a: bool) -> bool { !a }", Kind::Unary, "!", "");
        assert_eq!(text, "fn f(a: bool) -> bool { (if M { a } else { !a }) }");
    }

    #[test]
    fn a_change_within_a_changed_expression() {
        let source = "fn f(a: u8, b: u8) -> bool { a + 1 < b }";
        let change = |number, at: &str, replacement: &str| {
            let start = source.find(at).unwrap();
            Change {
                number,
                kind: Kind::Binary,
                bytes: start..start + 1,
                replacement: replacement.to_owned(),
            }
        };
        let woven = weave(source, vec![change(1, "+", "-"), change(2, "<", ">")]).unwrap();
        let text = woven.text.replace("crate::mutation::is_on", "M");
        assert!(
            text.contains(
                "(if M(2) { a + 1 > b } else { (if M(1) { a - 1 } else { a + 1 }) < b })"
            ),
            "{text}"
        );
    }

    #[test]
    fn functions_that_return_at_once() {
        let text = woven("fn f() -> u8 { g(); 3 }", Kind::Body, " g(); 3 ", "0");
        assert_eq!(text, "fn f() -> u8 { if M { return 0; } g(); 3 }");
    }

    #[test]
    fn arms() {
        let text = woven(
            "fn f(a: u8) -> u8 { match a { 1 | 2 => 3, _ => 4 } }",
            Kind::Arm,
            "1 | 2 => 3,",
            "",
        );
        assert_eq!(text, "fn f(a: u8) -> u8 { match a { 1 | 2 if !M => 3, _ => 4 } }");
        let text = woven(
            "fn f(a: u8) -> u8 { match a { n if n > 2 => 3, _ => 4 } }",
            Kind::Arm,
            "n if n > 2 => 3,",
            "",
        );
        assert_eq!(text, "fn f(a: u8) -> u8 { match a { n if !M && (n > 2) => 3, _ => 4 } }");
        let text = woven(
            "fn f(a: u8) -> u8 { match a { n if n > 2 => 3, _ => 4 } }",
            Kind::Guard,
            "n > 2",
            "true",
        );
        assert_eq!(
            text,
            "fn f(a: u8) -> u8 { match a { n if (if M { true } else { n > 2 }) => 3, _ => 4 } }"
        );
    }

    #[test]
    fn fields_of_a_structure() {
        let text = woven("fn f() -> S { S { a: 1, ..g() } }", Kind::Field, "a: 1", "");
        assert_eq!(text, "fn f() -> S { S { a: (if M { (g()).a } else { 1 }), ..g() } }");
    }

    #[test]
    fn what_no_switch_can_change() {
        for (source, at) in [
            ("const A: usize = 1 + 2;", "+"),
            ("static A: usize = 1 + 2;", "+"),
            ("fn f() -> [u8; 1 + 2] { [0; 1 + 2] }", "+"),
            (
                "fn f(a: Option<u8>, b: bool) -> bool { if let Some(_) = a && b { true } else { false } }",
                "&&",
            ),
        ] {
            assert_eq!(woven(source, Kind::Binary, at, "||"), source);
        }
    }
}
