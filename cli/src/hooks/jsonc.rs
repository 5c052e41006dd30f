//! Changes of a JSON file that people write by hand: comments, order, indentation and line ends stay as they are.
//!
//! Each change is a splice of the text at places that a parse has found, so nothing outside it moves. What was appended
//! and is removed again leaves the text as it was, but for the white space in what was empty before.

use agent_trace_store::{Error, Result};
use jsonc_parser::ast::{Array, Object, Value as Node};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::Value;

/// JSON with comments and trailing commas, which is what agents take at most.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// One step down from a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the member of an object.
    Member(String),
    /// To the element of an array.
    Element(usize),
}

/// Reads the text; nothing but white space and comments is an empty object.
pub(super) fn read(text: &str) -> Result<Value> {
    let parsed = parse(text)?;
    let value = parsed.as_ref().map_or_else(|| Value::Object(serde_json::Map::new()), value_of);
    if value.is_object() { Ok(value) } else { Err(Error::invalid("expected a JSON object")) }
}

/// Sets a member of the outermost object, unless it is there.
pub(super) fn ensure(text: &str, name: &str, value: &Value) -> Result<String> {
    let text = with_object(text)?;
    let root = parse(&text)?;
    let object = outermost(root.as_ref())?;
    if object.get(name).is_some() {
        return Ok(text);
    }
    Ok(insert(&text, &Container::of_object(object), Some(name), value))
}

/// Appends an element to the array `outer.inner` of the outermost object; makes what is absent.
pub(super) fn append(text: &str, outer: &str, inner: &str, element: &Value) -> Result<String> {
    let text = with_object(text)?;
    let root = parse(&text)?;
    let object = outermost(root.as_ref())?;
    let list = || Value::Array(vec![element.clone()]);
    let Some(member) = object.get(outer) else {
        let value = Value::Object([(inner.to_owned(), list())].into_iter().collect());
        return Ok(insert(&text, &Container::of_object(object), Some(outer), &value));
    };
    let Node::Object(events) = &member.value else {
        return Err(Error::invalid(format!("expected `{outer}` to be an object")));
    };
    let Some(member) = events.get(inner) else {
        return Ok(insert(&text, &Container::of_object(events), Some(inner), &list()));
    };
    let Node::Array(elements) = &member.value else {
        return Err(Error::invalid(format!("expected `{outer}.{inner}` to be an array")));
    };
    Ok(insert(&text, &Container::of_array(elements), None, element))
}

/// Removes what lies at the end of the steps.
pub(super) fn remove(text: &str, path: &[Step]) -> Result<String> {
    let root = parse(text)?;
    let absent = || Error::invalid("cannot remove what is not there");
    let (last, way) = path.split_last().ok_or_else(absent)?;
    let mut node = root.as_ref().ok_or_else(absent)?;
    for step in way {
        node = match (step, node) {
            (Step::Member(name), Node::Object(object)) => &object.get(name).ok_or_else(absent)?.value,
            (Step::Element(index), Node::Array(array)) => array.elements.get(*index).ok_or_else(absent)?,
            _ => return Err(absent()),
        };
    }
    let (container, index) = match (last, node) {
        (Step::Member(name), Node::Object(object)) => {
            let index = object.properties.iter().position(|member| member.name.as_str() == name);
            (Container::of_object(object), index.ok_or_else(absent)?)
        }
        (Step::Element(index), Node::Array(array)) => (Container::of_array(array), *index),
        _ => return Err(absent()),
    };
    cut(text, &container, index).ok_or_else(absent)
}

/// Whether there is a comment between the brackets at the end of the steps.
pub(super) fn holds_comment(text: &str, path: &[Step]) -> bool {
    let Ok(root) = parse(text) else { return false };
    let mut node = root.as_ref();
    for step in path {
        node = match (step, node) {
            (Step::Member(name), Some(Node::Object(object))) => object.get(name).map(|member| &member.value),
            (Step::Element(index), Some(Node::Array(array))) => array.elements.get(*index),
            _ => None,
        };
    }
    node.is_some_and(|node| {
        let inner = &text[node.start() + 1..node.end().saturating_sub(1)];
        inner.contains("//") || inner.contains("/*")
    })
}

/// An object or array in the text.
struct Container {
    open: usize,
    close: usize,
    children: Vec<(usize, usize)>,
}

impl Container {
    fn of_object(object: &Object<'_>) -> Container {
        let children = object.properties.iter().map(|member| (member.start(), member.end())).collect();
        Container { open: object.start(), close: object.end() - 1, children }
    }

    fn of_array(array: &Array<'_>) -> Container {
        let children = array.elements.iter().map(|element| (element.start(), element.end())).collect();
        Container { open: array.start(), close: array.end() - 1, children }
    }
}

fn parse(text: &str) -> Result<Option<Node<'_>>> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &OPTIONS);
    parsed.map(|parsed| parsed.value).map_err(|error| Error::invalid("expected JSON").with_source(error))
}

fn outermost<'a, 'b>(root: Option<&'b Node<'a>>) -> Result<&'b Object<'a>> {
    match root {
        Some(Node::Object(object)) => Ok(object),
        _ => Err(Error::invalid("expected a JSON object")),
    }
}

/// The text, with an object in it where it had no value at all.
fn with_object(text: &str) -> Result<String> {
    if parse(text)?.is_some() {
        return Ok(text.to_owned());
    }
    let break_ = if text.is_empty() || text.ends_with('\n') { "" } else { line_end(text) };
    Ok(format!("{text}{break_}{{}}{}", line_end(text)))
}

fn value_of(node: &Node<'_>) -> Value {
    match node {
        Node::StringLit(string) => Value::String(string.value.to_string()),
        // A number that does not fit is of no concern here.
        Node::NumberLit(number) => serde_json::from_str(number.value).unwrap_or(Value::Null),
        Node::BooleanLit(boolean) => Value::Bool(boolean.value),
        Node::Object(object) => Value::Object(
            object
                .properties
                .iter()
                .rev()
                .map(|member| (member.name.as_str().to_owned(), value_of(&member.value)))
                .collect::<serde_json::Map<_, _>>()
                .into_iter()
                .rev()
                .collect(),
        ),
        Node::Array(array) => Value::Array(array.elements.iter().map(value_of).collect()),
        Node::NullKeyword(_) => Value::Null,
    }
}

// ---- splices

fn insert(text: &str, container: &Container, name: Option<&str>, value: &Value) -> String {
    let (open, close) = (container.open, container.close);
    let Some(&(start, end)) = container.children.last() else {
        let inner = text[open + 1..close].trim_end();
        let outer = indentation(text, open);
        let child = format!("{outer}{}", unit(text));
        let item = render(text, name, value, Some(&child));
        let line = line_end(text);
        return format!("{}{inner}{line}{child}{item}{line}{outer}{}", &text[..=open], &text[close..]);
    };
    let trailing_comma = comma(text, end, close);
    if !text[open..close].contains('\n') {
        let item = render(text, name, value, None);
        let (at, before, after) = match trailing_comma {
            Some(comma) => (comma + 1, " ", ","),
            None => (end, ", ", ""),
        };
        return format!("{}{before}{item}{after}{}", &text[..at], &text[at..]);
    }
    let child = match begins_line(text, start) {
        true => indentation(text, start),
        false => format!("{}{}", indentation(text, open), unit(text)),
    };
    let item = render(text, name, value, Some(&child));
    let line = line_end(text);
    let content_end = text[..close].trim_end().len();
    let (comma, tail) = if trailing_comma.is_some() { ("", ",") } else { (",", "") };
    format!(
        "{}{comma}{}{line}{child}{item}{tail}{}",
        &text[..end],
        &text[end..content_end],
        &text[content_end..]
    )
}

fn cut(text: &str, container: &Container, index: usize) -> Option<String> {
    let &(start, end) = container.children.get(index)?;
    let next = container.children.get(index + 1);
    let before = match index.checked_sub(1) {
        Some(previous) => container.children[previous].1,
        None => container.open + 1,
    };
    let lead = text[before..start].trim_end();
    if next.is_some() {
        let after = comma(text, end, container.close)? + 1;
        return Some(format!("{}{lead}{}", &text[..before], &text[after..]));
    }
    let own_comma = comma(text, end, container.close);
    let after = own_comma.map_or(end, |comma| comma + 1);
    if index == 0 {
        // The last child is gone: a comment may stay, white space need not.
        let rest = if lead.is_empty() && text[after..container.close].trim().is_empty() {
            container.close
        } else {
            after
        };
        return Some(format!("{}{lead}{}", &text[..before], &text[rest..]));
    }
    // The comma in front was made for this child, unless the file ends its lists with one.
    let lead = match (own_comma, comma(text, before, start)) {
        (None, Some(comma)) => {
            format!("{}{}", &text[before..comma], &text[comma + 1..before + lead.len()])
        }
        _ => lead.to_owned(),
    };
    Some(format!("{}{}{}", &text[..before], lead.trim_end(), &text[after..]))
}

/// The first comma in a part of the text that holds nothing but white space, comments and commas.
fn comma(text: &str, from: usize, to: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < to {
        match bytes[at..to] {
            [b',', ..] => return Some(at),
            [b'/', b'/', ..] => at = text[at..to].find('\n').map_or(to, |length| at + length),
            [b'/', b'*', ..] => at = text[at + 2..to].find("*/").map_or(to, |length| at + length + 4),
            _ => at += 1,
        }
    }
    None
}

fn render(text: &str, name: Option<&str>, value: &Value, child: Option<&str>) -> String {
    let key = name.map(|name| format!("{}: ", Value::String(name.to_owned()))).unwrap_or_default();
    let Some(child) = child else { return format!("{key}{value}") };
    let mut pretty = Vec::new();
    let unit = unit(text);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(unit.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut pretty, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a value is always JSON");
    let pretty = String::from_utf8(pretty).expect("JSON is text");
    // A line break within a string is written as `\n`, so each of these is between two tokens.
    format!("{key}{}", pretty.replace('\n', &format!("{}{child}", line_end(text))))
}

/// What one level is indented by.
fn unit(text: &str) -> String {
    let indented =
        text.lines().find(|line| line.starts_with([' ', '\t']) && line.trim_start().starts_with('"'));
    match indented {
        Some(line) => line[..line.len() - line.trim_start().len()].to_owned(),
        None => "  ".to_owned(),
    }
}

/// The white space at the start of the line that a place is in.
fn indentation(text: &str, at: usize) -> String {
    let line = &text[text[..at].rfind('\n').map_or(0, |end| end + 1)..];
    line[..line.len() - line.trim_start_matches([' ', '\t']).len()].to_owned()
}

fn begins_line(text: &str, at: usize) -> bool {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[start..at].trim().is_empty()
}

fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(path: &[&str]) -> Vec<Step> {
        path.iter()
            .map(|step| step.parse().map_or_else(|_| Step::Member((*step).to_owned()), Step::Element))
            .collect()
    }

    /// Appends to `hooks.Stop`, compares, removes it again, compares with what was there.
    fn check(text: &str, appended: &str, made: &[&str]) {
        let after = append(text, "hooks", "Stop", &json!({"command": "x"})).unwrap();
        assert_eq!(after, appended, "{text:?}");
        read(&after).unwrap();
        assert_eq!(remove(&after, &steps(made)).unwrap(), text, "{after:?}");
    }

    #[test]
    fn what_is_absent_is_made_in_the_style_of_the_file() {
        check(
            "{\n  \"model\": \"x\"\n}\n",
            "{\n  \"model\": \"x\",\n  \"hooks\": {\n    \"Stop\": [\n      {\n        \"command\": \"x\"\n      }\n    ]\n  }\n}\n",
            &["hooks"],
        );
        check(
            "{\n\t\"hooks\": {\n\t\t\"Other\": [1]\n\t}\n}",
            "{\n\t\"hooks\": {\n\t\t\"Other\": [1],\n\t\t\"Stop\": [\n\t\t\t{\n\t\t\t\t\"command\": \"x\"\n\t\t\t}\n\t\t]\n\t}\n}",
            &["hooks", "Stop"],
        );
        check("{\"a\":1}", "{\"a\":1, \"hooks\": {\"Stop\":[{\"command\":\"x\"}]}}", &["hooks"]);
        check(
            "{\r\n    \"a\": 1\r\n}\r\n",
            "{\r\n    \"a\": 1,\r\n    \"hooks\": {\r\n        \"Stop\": [\r\n            {\r\n                \"command\": \"x\"\r\n            }\r\n        ]\r\n    }\r\n}\r\n",
            &["hooks"],
        );
        check(
            "{}",
            "{\n  \"hooks\": {\n    \"Stop\": [\n      {\n        \"command\": \"x\"\n      }\n    ]\n  }\n}",
            &["hooks"],
        );
    }

    #[test]
    fn comments_and_trailing_commas_stay_where_they_are() {
        check(
            "// top\n{\n  \"hooks\": {\n    \"Stop\": [\n      {\"command\": \"mine\"}, // keep, this\n      /* and } this */\n    ],\n  },\n}\n// end",
            "// top\n{\n  \"hooks\": {\n    \"Stop\": [\n      {\"command\": \"mine\"}, // keep, this\n      /* and } this */\n      {\n        \"command\": \"x\"\n      },\n    ],\n  },\n}\n// end",
            &["hooks", "Stop", "1"],
        );
        check(
            "{\n  \"hooks\": {\n    \"Stop\": [\n      \"a, // b\" // c, d\n    ]\n  }\n}",
            "{\n  \"hooks\": {\n    \"Stop\": [\n      \"a, // b\", // c, d\n      {\n        \"command\": \"x\"\n      }\n    ]\n  }\n}",
            &["hooks", "Stop", "1"],
        );
        check(
            "{\n  \"hooks\": { // none yet\n  }\n}",
            "{\n  \"hooks\": { // none yet\n    \"Stop\": [\n      {\n        \"command\": \"x\"\n      }\n    ]\n  }\n}",
            &["hooks", "Stop"],
        );
        check(
            "{\"hooks\": {\"Stop\": [1,]}}",
            "{\"hooks\": {\"Stop\": [1, {\"command\":\"x\"},]}}",
            &["hooks", "Stop", "1"],
        );
    }

    /// Writes JSON with comments, odd white space and trailing commas, as drawn.
    struct Author {
        state: u64,
        text: String,
    }

    impl Author {
        fn draw(&mut self, bound: usize) -> usize {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.state >> 33).unwrap() % bound
        }

        fn space(&mut self) {
            for _ in 0..self.draw(3) {
                let space = [" ", "\n", "\t", "\n  ", " // , ] }\n", "/* \", { */", "\r\n"][self.draw(7)];
                self.text.push_str(space);
            }
        }

        fn list(&mut self, depth: usize, brackets: (char, char), item: fn(&mut Author, usize, usize)) {
            self.text.push(brackets.0);
            let count = self.draw(4);
            for number in 0..count {
                self.space();
                item(self, depth, number);
                self.space();
                if number + 1 < count || self.draw(3) == 0 {
                    self.text.push(',');
                }
            }
            self.space();
            self.text.push(brackets.1);
        }

        fn value(&mut self, depth: usize) {
            match self.draw(if depth == 0 { 3 } else { 5 }) {
                0 => self.text.push_str("\"a, // \\\" }\""),
                1 => self.text.push_str("-1.50e3"),
                2 => self.text.push_str("null"),
                3 => self.list(depth - 1, ('[', ']'), |author, depth, _| author.value(depth)),
                _ => self.object(depth - 1),
            }
        }

        fn object(&mut self, depth: usize) {
            self.list(depth, ('{', '}'), |author, depth, number| {
                author.text.push_str(&format!("\"{number}\""));
                author.space();
                author.text.push(':');
                author.space();
                author.value(depth);
            });
        }
    }

    #[test]
    fn whatever_is_written_around_it_an_entry_comes_and_goes() {
        for seed in 0..5_000 {
            let mut author = Author { state: seed, text: String::new() };
            author.space();
            author.object(3);
            author.space();
            let before = author.text;
            let mut value = read(&before).unwrap_or_else(|error| panic!("{seed}: {error}: {before}"));
            let after = append(&before, "hooks", "Stop", &json!({"command": "x"})).unwrap();
            let again = append(&after, "hooks", "Stop", &json!(2)).unwrap();
            value["hooks"] = json!({"Stop": [{"command": "x"}, 2]});
            assert_eq!(read(&again).unwrap(), value, "{seed}: {before}\n{again}");
            assert_eq!(remove(&again, &steps(&["hooks", "Stop", "1"])).unwrap(), after, "{seed}");
            let restored = remove(&after, &steps(&["hooks"])).unwrap();
            let is_empty = read(&before).unwrap().as_object().unwrap().is_empty();
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            if is_empty {
                assert_eq!(squeeze(&restored), squeeze(&before), "{seed}");
            } else {
                assert_eq!(restored, before, "{seed}");
            }
        }
    }

    #[test]
    fn an_empty_file_becomes_an_object() {
        for (text, start) in [("", "{\n"), ("\n", "\n{\n"), ("// c", "// c\n{\n")] {
            let after = append(text, "hooks", "Stop", &json!(1)).unwrap();
            assert!(after.starts_with(start) && after.ends_with("}\n"), "{after:?}");
            assert_eq!(read(&after).unwrap(), json!({"hooks": {"Stop": [1]}}));
            assert_eq!(read(text).unwrap(), json!({}));
        }
    }

    #[test]
    fn what_stands_between_others_is_cut_out_with_its_comma() {
        let cut = |text: &str, path: &[&str]| remove(text, &steps(path)).unwrap();
        assert_eq!(cut("[{\"a\": [1, 2, 3]}]", &["0", "a", "1"]), "[{\"a\": [1, 3]}]");
        assert_eq!(
            cut("{\n  \"a\": 1, // one\n  \"b\": 2, // two\n  \"c\": 3\n}", &["b"]),
            "{\n  \"a\": 1, // one // two\n  \"c\": 3\n}"
        );
        assert_eq!(cut("{\n  \"a\": 1,\n  \"b\": 2\n}", &["a"]), "{\n  \"b\": 2\n}");
        assert_eq!(cut("{\n  \"a\": 1,\n}", &["a"]), "{}");
        assert_eq!(cut("{\n  // why\n  \"a\": 1\n}", &["a"]), "{\n  // why\n}");
        assert!(remove("{}", &steps(&["a"])).is_err() && remove("[1]", &steps(&["1"])).is_err());
    }

    #[test]
    fn members_are_set_once() {
        assert_eq!(ensure("{}", "version", &json!(1)).unwrap(), "{\n  \"version\": 1\n}");
        assert_eq!(ensure("{\"version\": 2}", "version", &json!(1)).unwrap(), "{\"version\": 2}");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in
            ["{", "[]", "1", "{a: 1}", "{'a': 1}", "{\"a\": 1 \"b\": 2}", "{} {}", "{\"a\": 0x1}", "\u{0}"]
        {
            assert!(append(text, "hooks", "Stop", &json!(1)).is_err(), "{text}");
        }
        for text in ["{\"hooks\": []}", "{\"hooks\": {\"Stop\": {}}}", "{\"hooks\": null}"] {
            assert!(append(text, "hooks", "Stop", &json!(1)).is_err(), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&deep).is_err());
    }
}
