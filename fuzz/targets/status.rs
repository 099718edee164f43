//! What the status handler is asked, and what it answers with texts that are anything. Queries and
//! forms against the rules as sentences; answers against readers of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use report::accept::wants_open_metrics;
use report::filter::Filter;
use report::form::Form;
use report::html::{self, List};
use report::metrics::{self, Format};
use report::query::Query;
use report::ready::NotReady;
use report::view::{
    Counter, Direction, Histogram, Opcode, Open, Overview, Place, Process, ProcessKind,
    RelayThread, Sample, Tunnel,
};
use report::{Bad, json};

use crate::input;

/// Fields of a query or a form, decoded: name, and value if there is a `=`.
type Fields = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A query, a form and an Accept header, each ended by NUL, then a tunnel: eight numbers of a byte,
/// an address of 16, texts ended by NUL.
pub fn run(mut data: &[u8]) {
    let query = input::text(&mut data);
    let form = input::text(&mut data);
    let accept = input::text(&mut data);
    let numbers = [(); 8].map(|()| u64::from(input::byte(&mut data)));
    let mut address = [0; 16];
    let given = input::bytes(&mut data, 16);
    address[..given.len()].copy_from_slice(given);
    let [id, user, vhost, path, subprotocol, backend] = [(); 6].map(|()| input::text(&mut data));
    let tunnel = Tunnel {
        id,
        client: IpAddr::V6(Ipv6Addr::from(address)),
        port: numbers[0] as u16 * 257,
        user,
        vhost,
        path,
        subprotocol,
        backend,
        place: Place::ALL[numbers[1] as usize % 3],
        pid: numbers[2] as u32,
        started_micros: u64::MAX / 255 * numbers[3],
        seconds: numbers[4],
        idle_seconds: numbers[5],
        bytes_up: u64::MAX / 255 * numbers[6],
        bytes_down: numbers[6] * 1000,
        messages_up: numbers[7],
        messages_down: numbers[7] * 1000,
        is_client_tls: numbers[0] & 1 != 0,
        is_backend_tls: numbers[0] & 2 != 0,
    };

    let found = Query::parse(query);
    assert_eq!(found.clone().map_err(is_one_line), expected_query(query).ok_or(()));
    let found_form = Form::parse(form);
    assert_eq!(found_form.clone().map_err(is_one_line), expected_form(form).ok_or(()));
    let is_wanted = wants_open_metrics(accept);
    let name = b"application/openmetrics-text";
    let is_named = accept.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name));
    assert!(is_named || !is_wanted);

    let mut filter = Filter::default();
    let mut page = 1;
    match found {
        Ok(Query::Page { filter: asked, page: number }) => (filter, page) = (asked, number),
        Ok(Query::Tunnels { filter: asked, .. }) => filter = asked,
        _ => {}
    }
    if let Ok(form) = found_form {
        assert!(!form.filter.is_empty() && form.reason.len() <= 123);
        matches(&form.filter, &tunnel);
    }
    matches(&filter, &tunnel);
    // The links of the page.
    let again = Query::parse(filter.to_query().as_bytes());
    assert_eq!(again, Ok(Query::Page { filter: filter.clone(), page: 1 }));

    let overview = overview(&tunnel, numbers[0] & 4 != 0);
    // One of them, since they take longer than all of the above.
    match numbers[2] % 4 {
        0 => shown_as_json(&overview, &tunnel),
        1 => shown_as_metrics(&overview, Format::Text),
        2 => shown_as_metrics(&overview, Format::OpenMetrics),
        _ => shown_as_html(&overview, &tunnel, &filter, page),
    }
}

/// Why something is refused goes into an answer and into the log.
fn is_one_line(bad: Bad) {
    let text = bad.to_string();
    assert!(text.len() < 300 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
}

/// URL Standard, section 5.1, but that a `%` must be followed by two digits.
fn decoded(text: &[u8]) -> Option<Fields> {
    let one = |text: &[u8]| {
        let mut parts = text.split(|byte| *byte == b'%');
        let spaces = |part: &[u8]| {
            part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect()
        };
        let mut whole: Vec<u8> = spaces(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            whole.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
            let rest: Vec<u8> = spaces(&part[2..]);
            whole.extend(rest);
        }
        Some(whole)
    };
    let mut fields = Vec::new();
    for field in text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
        let mut parts = field.splitn(2, |byte| *byte == b'=');
        let name = one(parts.next().unwrap_or_default())?;
        fields.push((
            name,
            match parts.next() {
                Some(value) => Some(one(value)?),
                None => None,
            },
        ));
    }
    Some(fields)
}

/// The filter of these fields, each of which must be one of `names`, right, and there once.
fn expected_filter(fields: &Fields, names: &[&str]) -> Option<Filter> {
    let mut values = BTreeMap::new();
    for (name, value) in fields {
        let name = names.iter().find(|known| known.as_bytes() == name)?;
        let value = value.clone().unwrap_or_default();
        if value.is_empty() || values.insert(*name, value).is_some() {
            return None;
        }
    }
    for name in ["older", "idle"] {
        if values.get(name).is_some_and(|value| whole_number(value).is_none()) {
            return None;
        }
    }
    let client = match values.get("client") {
        Some(text) => Some(match str::from_utf8(text).ok()?.parse().ok()? {
            IpAddr::V6(long) => long.to_ipv4_mapped().map_or(IpAddr::V6(long), IpAddr::V4),
            short => short,
        }),
        None => None,
    };
    let text = |name| values.get(name).cloned();
    let number = |name| values.get(name).and_then(|value| whole_number(value));
    Some(Filter {
        id: text("id"),
        client,
        user: text("user"),
        backend: text("backend"),
        vhost: text("vhost"),
        older: number("older"),
        idle: number("idle"),
    })
}

/// Of any length, as long as its value is not too large.
fn whole_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Takes out the field that may be there once; `None` if it is there more often.
fn take(fields: &mut Fields, name: &str) -> Option<Option<Vec<u8>>> {
    let (taken, rest): (Fields, Fields) =
        fields.drain(..).partition(|(found, _)| found == name.as_bytes());
    *fields = rest;
    match &taken[..] {
        [] => Some(None),
        [(_, value)] => Some(Some(value.clone().unwrap_or_default())),
        _ => None,
    }
}

fn expected_query(query: &[u8]) -> Option<Query> {
    const WORDS: [&str; 4] = ["json", "metrics", "tunnels", "ready"];
    const CONDITIONS: [&str; 6] = ["client", "user", "backend", "vhost", "older", "idle"];
    let (words, mut fields): (Fields, Fields) = decoded(query)?
        .into_iter()
        .partition(|(name, _)| WORDS.iter().any(|word| word.as_bytes() == name));
    if words.len() > 1
        || words.iter().any(|(_, value)| value.as_ref().is_some_and(|v| !v.is_empty()))
    {
        return None;
    }
    let number = |field: Option<Vec<u8>>| match field {
        Some(value) => whole_number(&value).map(Some),
        None => Some(None),
    };
    match words.first().map(|(name, _)| &name[..]) {
        None => {
            let page = number(take(&mut fields, "page")?)?;
            let mut names = vec!["id"];
            names.extend(CONDITIONS);
            // Fields of the form that nobody filled in.
            fields.retain(|(name, value)| {
                !(value.as_deref() == Some(b"") && names.iter().any(|one| one.as_bytes() == name))
            });
            let filter = expected_filter(&fields, &names)?;
            (page != Some(0)).then(|| Query::Page { filter, page: page.unwrap_or(1) })
        }
        Some(b"tunnels") => {
            let limit = number(take(&mut fields, "limit")?)?;
            Some(Query::Tunnels { filter: expected_filter(&fields, &CONDITIONS)?, limit })
        }
        Some(_) if !fields.is_empty() => None,
        Some(b"json") => Some(Query::Json),
        Some(b"metrics") => Some(Query::Metrics),
        Some(_) => Some(Query::Ready),
    }
}

fn expected_form(form: &[u8]) -> Option<Form> {
    let mut fields = decoded(form)?;
    let [action, nonce, code, reason] =
        ["action", "nonce", "code", "reason"].map(|name| take(&mut fields, name));
    if action?? != b"close" {
        return None;
    }
    let code = match code? {
        Some(code) => match &code[..] {
            [b'0'..=b'9', _, _, _] => str::from_utf8(&code).ok()?.parse().ok()?,
            _ => return None,
        },
        None => 1001,
    };
    let may_be_sent = [1000, 1001, 1003].contains(&code)
        || (1007..1015).contains(&code)
        || (3000..5000).contains(&code);
    let reason = String::from_utf8(reason?.unwrap_or_default()).ok()?;
    let names = ["id", "client", "user", "backend", "vhost", "older", "idle"];
    let filter = expected_filter(&fields, &names)?;
    if !may_be_sent || reason.len() > 123 || fields.is_empty() {
        return None;
    }
    let nonce = String::from_utf8_lossy(&nonce?.unwrap_or_default()).into_owned();
    Some(Form { nonce, filter, code, reason })
}

/// Each condition for itself.
fn matches(filter: &Filter, tunnel: &Tunnel<'_>) {
    let short = |address: IpAddr| match address {
        IpAddr::V6(long) => long.to_ipv4_mapped().map_or(address, IpAddr::V4),
        short @ IpAddr::V4(_) => short,
    };
    let differs = [
        filter.id.as_ref().is_some_and(|id| id != tunnel.id),
        filter.client.is_some_and(|client| short(client) != short(tunnel.client)),
        filter.user.as_ref().is_some_and(|user| user != tunnel.user),
        filter.backend.as_ref().is_some_and(|backend| backend != tunnel.backend),
        filter.vhost.as_ref().is_some_and(|vhost| vhost != tunnel.vhost),
        filter.older.is_some_and(|seconds| tunnel.seconds < seconds),
        filter.idle.is_some_and(|seconds| tunnel.idle_seconds < seconds),
    ];
    assert_eq!(filter.matches(tunnel), !differs.contains(&true));
}

fn overview(tunnel: &Tunnel<'_>, is_closing_allowed: bool) -> Overview {
    let sample = |counter| Sample { vhost: tunnel.vhost.to_vec(), counter, value: tunnel.bytes_up };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let histogram = |bounds_micros| Histogram {
        bounds_micros,
        counts: vec![tunnel.seconds, tunnel.bytes_up, tunnel.bytes_up],
        sum_micros: tunnel.bytes_up,
    };
    Overview {
        version: text(tunnel.id),
        httpd: text(tunnel.path),
        openssl: text(tunnel.subprotocol),
        mpm: text(tunnel.user),
        started: tunnel.started_micros,
        ready: Err(NotReady::FileAbsent { file: text(tunnel.backend) }),
        is_closing_allowed,
        nonce: text(tunnel.user),
        possible: tunnel.bytes_down,
        unlisted: tunnel.bytes_up,
        open: vec![Open {
            vhost: tunnel.vhost.to_vec(),
            backend: tunnel.backend.to_vec(),
            place: tunnel.place,
            tunnels: tunnel.bytes_up,
        }],
        samples: vec![
            sample(Counter::Opened { backend: tunnel.backend.to_vec() }),
            sample(Counter::Opened { backend: tunnel.backend.to_vec() }),
            sample(Counter::Closed { by: "client", reason: "closed", code: tunnel.port }),
            sample(Counter::Handshakes { result: "101" }),
            sample(Counter::Bytes(Direction::Up)),
            sample(Counter::Messages(Direction::Down, Opcode::Text)),
        ],
        fallbacks: vec![("http2", tunnel.bytes_up)],
        tls_sessions: vec![("native", tunnel.bytes_down)],
        tunnel_durations: histogram(&[1_000_000, 2_500_000]),
        handshake_durations: histogram(&[]),
        processes: vec![Process {
            pid: tunnel.pid,
            kind: ProcessKind::Drain,
            tunnels: tunnel.bytes_up,
            possible: tunnel.seconds,
            threads: vec![RelayThread { number: 0, cpu_micros: tunnel.bytes_up }],
        }],
    }
}

/// What a text becomes: nothing is lost but what is not UTF-8.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown_as_json(overview: &Overview, tunnel: &Tunnel<'_>) {
    let text = json::overview(overview, std::slice::from_ref(tunnel));
    let (line, rest) = text.split_once('\n').expect("a line");
    assert!(rest.is_empty() && !line.contains(char::is_control), "{line:?}");
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let shown = &value["list"][0];
    for (name, bytes) in [
        ("id", tunnel.id),
        ("user", tunnel.user),
        ("vhost", tunnel.vhost),
        ("path", tunnel.path),
        ("subprotocol", tunnel.subprotocol),
        ("backend", tunnel.backend),
    ] {
        assert_eq!(shown[name], lossy(bytes), "{name}");
    }
    assert_eq!(shown["bytes_up"], tunnel.bytes_up);
    assert_eq!(value["vhosts"].as_object().expect("an object").len(), 1);
    assert!(value["backends"].get(lossy(tunnel.backend)).is_some());
    let list: serde_json::Value =
        serde_json::from_str(&json::tunnels(&[*tunnel, *tunnel])).expect("JSON");
    assert_eq!(list[1], *shown);
}

/// Each line is what the formats allow, each sample is there once, and labels are the texts again.
fn shown_as_metrics(overview: &Overview, format: Format) {
    let page = metrics::render(overview, format);
    assert_eq!(page.ends_with("\n# EOF\n"), format == Format::OpenMetrics);
    let mut seen = BTreeSet::new();
    let mut vhosts = BTreeSet::new();
    for line in page.strip_suffix('\n').expect("a line").split('\n') {
        if line.starts_with("# ") {
            continue;
        }
        let end = line.find(['{', ' ']).expect("a name");
        assert!(
            line[..end].bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{line}"
        );
        let mut signs = line[end..].chars().peekable();
        let mut labels = BTreeMap::new();
        while signs.next_if(|sign| matches!(sign, '{' | ',')).is_some() {
            let name: String =
                std::iter::from_fn(|| signs.next_if(char::is_ascii_lowercase)).collect();
            assert_eq!((signs.next(), signs.next()), (Some('='), Some('"')), "{line}");
            let mut value = String::new();
            loop {
                value.push(match signs.next().expect("the end of a text") {
                    '"' => break,
                    '\\' => match signs.next() {
                        Some('n') => '\n',
                        Some(sign @ ('\\' | '"')) => sign,
                        other => panic!("{other:?} in {line}"),
                    },
                    sign => sign,
                });
            }
            assert!(labels.insert(name, value).is_none(), "{line}");
        }
        signs.next_if_eq(&'}');
        let value: String = signs.collect();
        let value = value.strip_prefix(' ').expect("a value");
        assert!(value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        vhosts.extend(labels.get("vhost").cloned());
        assert!(seen.insert((line[..end].to_owned(), labels)), "{line}");
    }
    let expected: BTreeSet<_> = [lossy(&overview.open[0].vhost)].into();
    vhosts.remove("other");
    assert!(vhosts == expected || vhosts.is_empty() && expected.contains("other"));
}

/// The tags of a page are those of one whose texts have no sign of HTML in them.
fn shown_as_html(overview: &Overview, tunnel: &Tunnel<'_>, filter: &Filter, page: u64) {
    let shown = html::page(overview, &List { tunnels: &[*tunnel], filter, page });
    assert!(!shown.contains(|sign: char| sign.is_control() && sign != '\n'));

    let [id, user, vhost, path, subprotocol, backend] =
        [tunnel.id, tunnel.user, tunnel.vhost, tunnel.path, tunnel.subprotocol, tunnel.backend]
            .map(tame);
    let tunnel = Tunnel {
        id: &id,
        user: &user,
        vhost: &vhost,
        path: &path,
        subprotocol: &subprotocol,
        backend: &backend,
        ..*tunnel
    };
    let overview = self::overview(&tunnel, overview.is_closing_allowed);
    let mut filter = filter.clone();
    for text in [&mut filter.id, &mut filter.user, &mut filter.vhost, &mut filter.backend] {
        *text = text.as_deref().map(tame);
    }
    let expected = html::page(&overview, &List { tunnels: &[tunnel], filter: &filter, page });
    assert_eq!(tags(&shown), tags(&expected));
}

/// A letter for each sign of HTML. What is UTF-8, or empty, stays so.
fn tame(text: &[u8]) -> Vec<u8> {
    let letter = |byte: &u8| match byte {
        b'<' | b'>' | b'&' | b'"' | b'\'' => b'x',
        other => *other,
    };
    text.iter().map(letter).collect()
}

/// The name of each tag and of its attributes.
fn tags(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for piece in page.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "{text}");
        // What is between quotes is every other piece.
        tags.push(tag.split('"').step_by(2).collect());
    }
    tags
}
