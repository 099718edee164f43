//! What a GET asks for: the words behind the question mark.

use crate::Bad;
use crate::filter::{Filter, number, once};
use crate::urlencoded::fields;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The page for people.
    Page {
        /// The tunnels that are listed. No `id` unless asked for.
        filter: Filter,
        /// Which part of the list, from 1.
        page: u64,
    },
    /// All of it as JSON.
    Json,
    /// Figures for Prometheus.
    Metrics,
    /// A list of tunnels as JSON.
    Tunnels {
        /// Those that are listed.
        filter: Filter,
        /// At most so many.
        limit: Option<u64>,
    },
    /// Whether new tunnels are taken.
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Json,
    Metrics,
    Tunnels,
    Ready,
}

impl Query {
    /// Reads the query as it came, without the question mark.
    ///
    /// # Errors
    /// If there is anything in it that is not known, or not right.
    pub fn parse(query: &[u8]) -> Result<Self, Bad> {
        let (mut word, mut filter, mut limit, mut page) = (None, Filter::default(), None, None);
        let mut sent = Vec::new();
        for field in fields(query) {
            let (name, value) = field?;
            match (word_of(&name), value) {
                // `json=`: what Prometheus and others make of a parameter without a value.
                (Some(found), None) => once("what is asked for", &mut word, found)?,
                (Some(found), Some(value)) if value.is_empty() => {
                    once("what is asked for", &mut word, found)?;
                }
                (Some(_), Some(value)) => {
                    return Err(Bad::with("a value where none belongs", &value));
                }
                (None, value) => sent.push((name, value)),
            }
        }
        for (name, value) in sent {
            let is_page = word.is_none();
            let is_left_empty = value.as_ref().is_some_and(Vec::is_empty);
            let value = value.unwrap_or_default();
            match &*name {
                _ if !is_page && word != Some(Word::Tunnels) => return Err(unknown(&name)),
                b"page" if is_page => once("page", &mut page, page_number(&value)?)?,
                b"limit" if !is_page => once("limit", &mut limit, number("limit", &value)?)?,
                b"id" if !is_page => return Err(unknown(&name)),
                // The page's own form sends what nobody filled in.
                _ if is_page && is_left_empty && Filter::is_condition(&name) => {}
                _ if filter.set(&name, &value)? => {}
                _ => return Err(unknown(&name)),
            }
        }
        Ok(match word {
            None => Self::Page { filter, page: page.unwrap_or(1) },
            Some(Word::Json) => Self::Json,
            Some(Word::Metrics) => Self::Metrics,
            Some(Word::Tunnels) => Self::Tunnels { filter, limit },
            Some(Word::Ready) => Self::Ready,
        })
    }
}

fn word_of(name: &[u8]) -> Option<Word> {
    Some(match name {
        b"json" => Word::Json,
        b"metrics" => Word::Metrics,
        b"tunnels" => Word::Tunnels,
        b"ready" => Word::Ready,
        _ => return None,
    })
}

fn unknown(name: &[u8]) -> Bad {
    Bad::with("unknown query word", name)
}

fn page_number(value: &[u8]) -> Result<u64, Bad> {
    match number("page", value)? {
        0 => Err(Bad::new("page is 0, the first is 1")),
        page => Ok(page),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, value: &str) -> Filter {
        let mut filter = Filter::default();
        assert!(filter.set(name.as_bytes(), value.as_bytes()).unwrap());
        filter
    }

    #[test]
    fn words_are_known() {
        let nothing = Filter::default;
        for (query, expected) in [
            ("", Query::Page { filter: nothing(), page: 1 }),
            ("&", Query::Page { filter: nothing(), page: 1 }),
            ("page=7", Query::Page { filter: nothing(), page: 7 }),
            ("client=&user=&older=&page=2", Query::Page { filter: nothing(), page: 2 }),
            ("client=&user=a+b", Query::Page { filter: filter("user", "a b"), page: 1 }),
            ("id=x", Query::Page { filter: filter("id", "x"), page: 1 }),
            ("json", Query::Json),
            ("json=", Query::Json),
            ("&%6ason&", Query::Json),
            ("metrics", Query::Metrics),
            ("metrics=", Query::Metrics),
            ("ready", Query::Ready),
            ("tunnels", Query::Tunnels { filter: nothing(), limit: None }),
            ("tunnels&limit=0", Query::Tunnels { filter: nothing(), limit: Some(0) }),
            ("tunnels&user=a%26b", Query::Tunnels { filter: filter("user", "a&b"), limit: None }),
            (
                "idle=60&tunnels=&limit=5",
                Query::Tunnels { filter: filter("idle", "60"), limit: Some(5) },
            ),
        ] {
            assert_eq!(Query::parse(query.as_bytes()), Ok(expected), "{query}");
        }
        let parsed = Query::parse(
            b"tunnels&client=::ffff:192.0.2.7&user=alice&backend=http%3A%2F%2F127.0.0.1%3A8080\
              &vhost=example.com:443&older=1&idle=2&limit=3",
        );
        let Ok(Query::Tunnels { filter, limit: Some(3) }) = parsed else { panic!("{parsed:?}") };
        assert!(filter.matches(&crate::samples::tunnel()));
        assert_eq!(filter.conditions().len(), 6);
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused() {
        for (query, text) in [
            ("x", r#"unknown query word: "x""#),
            ("auto", r#"unknown query word: "auto""#),
            ("JSON", r#"unknown query word: "JSON""#),
            ("x=", r#"unknown query word: "x""#),
            ("=", r#"unknown query word: """#),
            ("json&x=1", r#"unknown query word: "x""#),
            ("json&client=::1", r#"unknown query word: "client""#),
            ("client=&json", r#"unknown query word: "client""#),
            ("metrics&limit=1", r#"unknown query word: "limit""#),
            ("ready&page=1", r#"unknown query word: "page""#),
            ("tunnels&page=1", r#"unknown query word: "page""#),
            ("tunnels&id=x", r#"unknown query word: "id""#),
            ("tunnels&path=/", r#"unknown query word: "path""#),
            ("limit=1", r#"unknown query word: "limit""#),
            ("action=close&user=a", r#"unknown query word: "action""#),
            ("<script>\n", r#"unknown query word: "<script>\n""#),
            ("json=1", r#"a value where none belongs: "1""#),
            ("json&json", "what is asked for is there twice"),
            ("json&metrics", "what is asked for is there twice"),
            ("tunnels&user", "user is empty"),
            ("tunnels&user=", "user is empty"),
            ("user", "user is empty"),
            ("tunnels&client=", r#"client is no IP address: """#),
            ("tunnels&older=", r#"older is no whole number: """#),
            ("tunnels&older=abc", r#"older is no whole number: "abc""#),
            ("older=abc", r#"older is no whole number: "abc""#),
            ("tunnels&limit=-1", r#"limit is no whole number: "-1""#),
            ("tunnels&limit=1&limit=1", "limit is there twice"),
            ("tunnels&user=a&user=a", "user is there twice"),
            ("page=0", "page is 0, the first is 1"),
            ("page=x", r#"page is no whole number: "x""#),
            ("page=1&page=1", "page is there twice"),
            ("tunnels&user=%4", r#"% without two hexadecimal digits: "%4""#),
        ] {
            let bad = Query::parse(query.as_bytes()).unwrap_err();
            assert_eq!(bad.to_string(), text, "{query}");
        }
    }
}
