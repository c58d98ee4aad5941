//! The parameters of a request, read strictly: what is not known or makes no sense is an answer that says what to write.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::Question;
use super::reply::Problem;
use crate::record::{Kind, Verdict};
use crate::telemetry::decisions::Filter;

/// The longest query that is looked at.
const MAX_QUERY: usize = 8 * 1024;

/// A name and what stands behind its equals sign, both decoded.
type Parameter<'q> = (Cow<'q, str>, Cow<'q, str>);

/// The parameters in their order.
pub(super) fn parameters(query: Option<&str>) -> Result<Vec<Parameter<'_>>, Problem> {
    let query = query.unwrap_or_default();
    if query.len() > MAX_QUERY {
        return Err(Problem::bad("the query is too long", "name fewer parameters"));
    }
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match (decode(key), decode(value)) {
                (Some(key), Some(value)) => Ok((key, value)),
                _ => Err(Problem::bad(
                    &format!("`{part}` is not encoded right"),
                    "write `%25` for a percent sign",
                )),
            }
        })
        .collect()
}

/// A number from 1 up to `most`.
pub(super) fn limit(value: &str, most: usize) -> Result<usize, Problem> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(Problem::bad(
            &format!("`{value}` is no limit"),
            &format!("`limit` is a number from 1 to {most}"),
        )),
    }
}

/// The connections that `/api/v1/status` shows: a number up to `most`, `default` where the request names none.
pub(super) fn status(query: Option<&str>, default: usize, most: usize) -> Result<usize, Problem> {
    let mut number = default;
    for (key, value) in parameters(query)? {
        if key != "connections" {
            let error = format!("there is no parameter `{key}`");
            return Err(Problem::bad(&error, "use `connections`"));
        }
        number = value
            .parse()
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| {
                Problem::bad(
                    &format!("`{value}` is no number of connections"),
                    &format!("`connections` is a number from 0 to {most}"),
                )
            })?;
    }
    Ok(number)
}

/// What `/api/v1/explain` is asked.
pub(super) fn question(query: Option<&str>) -> Result<Question, Problem> {
    let (mut to, mut from, mut source) = (None, None, None);
    for (key, value) in parameters(query)? {
        match &*key {
            "to" => to = Some(value.into_owned()),
            "from" => from = Some(value.into_owned()),
            "source" => {
                let address: Result<IpAddr, _> = value.parse();
                let hint = "`source` is the peer's IP address: `10.1.2.3`";
                let address =
                    address.map_err(|_| Problem::bad(&format!("`{value}` is no IP address"), hint))?;
                source = Some(address.to_canonical());
            }
            _ => {
                let error = format!("there is no parameter `{key}`");
                return Err(Problem::bad(&error, "use `to`, `from` and `source`"));
            }
        }
    }
    match (to, from) {
        (Some(to), Some(from)) => Ok(Question { to, from, source }),
        _ => Err(Problem::bad(
            "`to` and `from` are needed",
            "ask `?to=LISTENER&from=SPIFFE_ID`, and `&source=IP` where the peer's address plays a part",
        )),
    }
}

/// `IP:port`, with IPv4-mapped addresses as IPv4.
pub(super) fn address(value: &str) -> Result<SocketAddr, Problem> {
    let hint = "`local` is what the application sees as its peer: `127.0.0.1:40312`";
    let address: Result<SocketAddr, _> = value.parse();
    let address = address.map_err(|_| Problem::bad(&format!("`{value}` is no address"), hint))?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Which verdicts are asked for, and how many of them at most; `None` where the request leaves that open.
pub(super) fn decisions(query: Option<&str>, most: usize) -> Result<(Filter, Option<usize>), Problem> {
    let mut filter = Filter::default();
    let mut number = None;
    for (key, value) in parameters(query)? {
        let wrong = |what: &str, hint: &str| Problem::bad(&format!("`{value}` is no {what}"), hint);
        match &*key {
            "limit" => number = Some(limit(&value, most)?),
            "id" => filter.id = Some(value.parse().map_err(|e| wrong("id", &format!("{e}")))?),
            "connection" => {
                let hint = "`connection` is the number of a connection, `id` in its log line";
                filter.connection = Some(value.parse().map_err(|_| wrong("connection", hint))?);
            }
            "verdict" => {
                // Nothing is recorded where nothing was said.
                let words = [Verdict::Allow, Verdict::Deny];
                let word = words.into_iter().find(|word| word.as_str() == value);
                filter.verdict =
                    Some(word.ok_or_else(|| wrong("verdict", "`verdict` is `allow` or `deny`"))?);
            }
            "kind" => {
                let word = Kind::ALL.iter().find(|word| word.as_str() == value);
                let words: Vec<_> = Kind::ALL.iter().map(|word| format!("`{word}`")).collect();
                let hint = format!("`kind` is one of {}", words.join(", "));
                filter.kind = Some(*word.ok_or_else(|| wrong("kind", &hint))?);
            }
            "peer" => {
                let hint = |e: &dyn std::fmt::Display| {
                    format!(
                        "`peer` is a SPIFFE ID or a pattern as in policies, `spiffe://example.org/ns/*/sa/web`: {e}"
                    )
                };
                filter.peer = Some(value.parse().map_err(|e| wrong("pattern", &hint(&e)))?);
            }
            "listener" if value.is_empty() => {
                return Err(wrong("listener", "`listener` is a listener's name"));
            }
            "listener" => filter.listener = Some(value.into_owned()),
            _ => {
                return Err(Problem::bad(
                    &format!("there is no parameter `{key}`"),
                    "use `limit`, `verdict`, `kind`, `peer`, `listener`, `connection` or `id`",
                ));
            }
        }
    }
    Ok((filter, number))
}

/// Percent-decoding (RFC 3986 section 2.1). A plus stays one: it is no blank outside of HTML forms.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_from_plain_and_from_encoded_text() {
        let query = "verdict=deny&peer=spiffe%3A%2F%2Fexample.org%2Fns%2F%2A%2Fsa%2Fweb&listener=orders&limit=7\
                     &connection=12&kind=handshake&id=4f2a90c1d3e7-17";
        let (filter, limit) = decisions(Some(query), 1000).unwrap();
        assert_eq!(limit, Some(7));
        assert_eq!(
            filter.peer.unwrap().to_string(),
            "spiffe://example.org/ns/*/sa/web"
        );
        assert_eq!(
            (
                filter.verdict,
                filter.kind,
                filter.connection,
                filter.listener.as_deref()
            ),
            (
                Some(Verdict::Deny),
                Some(Kind::Handshake),
                Some(12),
                Some("orders")
            )
        );
        assert_eq!(filter.id.unwrap().to_string(), "4f2a90c1d3e7-17");
        let (_, limit) = decisions(Some("peer=spiffe://example.org/**"), 1000).unwrap();
        assert_eq!(limit, None);
    }

    #[test]
    fn questions_and_numbers_of_connections_are_read_strictly() {
        let asked = question(Some(
            "to=orders&from=spiffe%3A%2F%2Fexample.org%2Fa&source=::ffff:10.1.2.3",
        ));
        let expected = Question {
            to: "orders".to_owned(),
            from: "spiffe://example.org/a".to_owned(),
            source: Some([10, 1, 2, 3].into()),
        };
        assert_eq!(asked.unwrap(), expected);
        for (query, error) in [
            ("to=orders", "`to` and `from` are needed"),
            ("from=x", "`to` and `from` are needed"),
            ("", "`to` and `from` are needed"),
            ("to=orders&from=x&source=10.0.0.0/8", "is no IP address"),
            ("to=orders&from=x&method=GET", "there is no parameter `method`"),
        ] {
            let problem = question(Some(query)).unwrap_err();
            assert!(problem.error.contains(error), "{query}: {problem:?}");
        }
        for (query, number) in [
            (None, 200),
            (Some("connections=0"), 0),
            (Some("connections=1000"), 1000),
        ] {
            assert_eq!(status(query, 200, 1000).unwrap(), number, "{query:?}");
        }
        for query in ["connections=1001", "connections", "connections=-1", "limit=3"] {
            assert!(status(Some(query), 200, 1000).is_err(), "{query}");
        }
    }

    #[test]
    fn what_is_wrong_is_answered_with_what_to_write() {
        for (query, error, hint) in [
            ("limit=0", "`0` is no limit", "from 1 to 1000"),
            ("limit=1001", "`1001` is no limit", "from 1 to 1000"),
            ("limit", "`` is no limit", "from 1 to 1000"),
            ("verdict=none", "`none` is no verdict", "`allow` or `deny`"),
            ("verdict=Deny", "`Deny` is no verdict", "`allow` or `deny`"),
            ("kind=open", "`open` is no kind", "`open_connection`"),
            ("id=17", "`17` is no id", "such as `4f2a90c1d3e7-17`"),
            ("peer=web", "`web` is no pattern", "spiffe://"),
            ("peer=spiffe://example.org/a*", "is no pattern", "as in policies"),
            ("connection=x", "`x` is no connection", "its log line"),
            ("listener=", "`` is no listener", "name"),
            ("color=red", "there is no parameter `color`", "`verdict`"),
            ("peer=%zz", "is not encoded right", "`%25`"),
            ("peer=%2", "is not encoded right", "`%25`"),
            ("peer=%ff", "is not encoded right", "`%25`"),
        ] {
            let problem = decisions(Some(query), 1000).unwrap_err();
            assert!(problem.error.contains(error), "{query}: {problem:?}");
            assert!(problem.hint.contains(hint), "{query}: {problem:?}");
        }
        assert!(decisions(Some(&"x".repeat(MAX_QUERY + 1)), 1).is_err());
    }
}
