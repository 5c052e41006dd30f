//! Finds the items of a v1 upload in its bytes, without reading more than one item into memory.
//!
//! Looks at structure only: strings, brackets, and the members of the outermost object. Whether an item is JSON that the
//! archive takes is found there, item by item, so that a bad one does not spoil its neighbours. Never recurses.

use std::io;

use agent_trace_store::json::{Reader, canonicalize};

use super::limits::{BODY_DEPTH_MAX, RECORDS_MAX, SPOOL_STEP_BYTES};

/// Where the bytes come from: read at an offset, zero at the end.
pub(super) trait ReadAt {
    /// Reads some bytes at an offset.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Why a body cannot be taken apart.
#[derive(Debug)]
pub(super) enum ScanError {
    /// It is not JSON, or not an object.
    Malformed,
    /// It holds more items than one request may.
    TooMany,
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> ScanError {
        ScanError::Io(error)
    }
}

/// One list of items in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Items {
    /// Where its bracket stands.
    offset: u64,
    /// How many there are.
    pub(super) count: u64,
    /// The length of the longest.
    pub(super) bytes_max: u64,
}

/// What a member holds that should be a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// It is a list.
    Items(Items),
    /// It is something else.
    Other,
}

/// What a body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    /// `project_id`, where it is a string.
    pub(super) project: Option<String>,
    /// `items`
    pub(super) items: Option<Listed>,
    /// `conversation_contents`
    pub(super) contents: Option<Listed>,
}

/// Reads the outermost object; the last of two members with one name counts.
pub(super) fn envelope(source: &dyn ReadAt) -> Result<Envelope, ScanError> {
    let mut scanner = Scanner::new(source, 0);
    let mut found = Envelope::default();
    scanner.space()?;
    scanner.expect(b'{')?;
    scanner.space()?;
    if scanner.peek()? == Some(b'}') {
        scanner.at += 1;
    } else {
        loop {
            scanner.space()?;
            let mut key = Kept::new(256);
            if scanner.peek()? != Some(b'"') {
                return Err(ScanError::Malformed);
            }
            scanner.value(Some(&mut key))?;
            scanner.space()?;
            scanner.expect(b':')?;
            scanner.space()?;
            match key.bytes.as_slice() {
                b"\"project_id\"" => found.project = scanner.short_text()?,
                b"\"items\"" => found.items = Some(scanner.listed()?),
                b"\"conversation_contents\"" => found.contents = Some(scanner.listed()?),
                _ => scanner.value(None)?,
            }
            scanner.space()?;
            match scanner.next()? {
                b',' => {}
                b'}' => break,
                _ => return Err(ScanError::Malformed),
            }
        }
    }
    scanner.space()?;
    if scanner.peek()?.is_some() { Err(ScanError::Malformed) } else { Ok(found) }
}

/// Hands over the items of a list, one after the other; an item over the limit as `None`.
pub(super) fn each_item<E: From<ScanError>>(
    source: &dyn ReadAt,
    items: &Items,
    item_bytes_max: usize,
    each: &mut dyn FnMut(Option<Vec<u8>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut scanner = Scanner::new(source, items.offset);
    scanner.expect(b'[')?;
    for at in 0..items.count {
        if at > 0 {
            scanner.space()?;
            scanner.expect(b',')?;
        }
        scanner.space()?;
        let mut kept = Kept::new(item_bytes_max);
        scanner.value(Some(&mut kept))?;
        each((!kept.is_over).then_some(kept.bytes))?;
    }
    Ok(())
}

/// The bytes of a value, up to a limit.
struct Kept {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_over: bool,
}

impl Kept {
    fn new(bytes_max: usize) -> Kept {
        Kept { bytes: Vec::new(), bytes_max, is_over: false }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        if self.bytes.len() + bytes.len() > self.bytes_max {
            self.is_over = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

struct Scanner<'a> {
    source: &'a dyn ReadAt,
    /// Where in the source the buffer begins.
    start: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the next byte is, and where what was read ends.
    at: usize,
    end: usize,
}

impl<'a> Scanner<'a> {
    fn new(source: &'a dyn ReadAt, start: u64) -> Scanner<'a> {
        Scanner { source, start, buffer: vec![0; SPOOL_STEP_BYTES / 4], at: 0, end: 0 }
    }

    fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// What has been read and not been passed; empty at the end only.
    fn rest(&mut self) -> Result<&[u8], ScanError> {
        if self.at == self.end {
            self.start += self.end as u64;
            (self.at, self.end) = (0, 0);
            self.end = self.source.read_at(&mut self.buffer, self.start)?;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn peek(&mut self) -> Result<Option<u8>, ScanError> {
        Ok(self.rest()?.first().copied())
    }

    fn next(&mut self) -> Result<u8, ScanError> {
        let byte = self.peek()?.ok_or(ScanError::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), ScanError> {
        if self.next()? == wanted { Ok(()) } else { Err(ScanError::Malformed) }
    }

    fn space(&mut self) -> Result<(), ScanError> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek()? {
            self.at += 1;
        }
        Ok(())
    }

    /// Passes so many bytes of the buffer.
    fn pass(&mut self, count: usize, kept: &mut Option<&mut Kept>) {
        if let Some(kept) = kept {
            kept.put(&self.buffer[self.at..self.at + count]);
        }
        self.at += count;
    }

    /// Passes one value.
    fn value(&mut self, mut kept: Option<&mut Kept>) -> Result<(), ScanError> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek()?.ok_or(ScanError::Malformed)? {
                b'"' => self.string(&mut kept)?,
                byte @ (b'{' | b'[') => {
                    if open.len() == BODY_DEPTH_MAX {
                        return Err(ScanError::Malformed);
                    }
                    open.push(byte);
                    self.pass(1, &mut kept);
                }
                byte @ (b'}' | b']') => {
                    // `{` and `}` are two apart in ASCII, and so are `[` and `]`.
                    if open.pop() != Some(byte - 2) {
                        return Err(ScanError::Malformed);
                    }
                    self.pass(1, &mut kept);
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if !open.is_empty() => self.pass(1, &mut kept),
                byte if is_scalar(byte) => self.scalar(&mut kept)?,
                _ => return Err(ScanError::Malformed),
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    fn string(&mut self, kept: &mut Option<&mut Kept>) -> Result<(), ScanError> {
        self.pass(1, kept);
        loop {
            let rest = self.rest()?;
            if rest.is_empty() {
                return Err(ScanError::Malformed);
            }
            match memchr::memchr2(b'"', b'\\', rest) {
                None => {
                    let count = rest.len();
                    self.pass(count, kept);
                }
                Some(end) => {
                    let is_end = rest[end] == b'"';
                    self.pass(end + 1, kept);
                    if is_end {
                        return Ok(());
                    }
                    // What is escaped cannot end the string.
                    self.peek()?.ok_or(ScanError::Malformed)?;
                    self.pass(1, kept);
                }
            }
        }
    }

    fn scalar(&mut self, kept: &mut Option<&mut Kept>) -> Result<(), ScanError> {
        loop {
            let rest = self.rest()?;
            let count = rest.iter().take_while(|byte| is_scalar(**byte)).count();
            let goes_on = count == rest.len() && count > 0;
            self.pass(count, kept);
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn listed(&mut self) -> Result<Listed, ScanError> {
        if self.peek()? != Some(b'[') {
            self.value(None)?;
            return Ok(Listed::Other);
        }
        let mut items = Items { offset: self.position(), count: 0, bytes_max: 0 };
        self.at += 1;
        self.space()?;
        if self.peek()? == Some(b']') {
            self.at += 1;
            return Ok(Listed::Items(items));
        }
        loop {
            self.space()?;
            let start = self.position();
            self.value(None)?;
            items.bytes_max = items.bytes_max.max(self.position() - start);
            items.count += 1;
            if items.count > RECORDS_MAX {
                return Err(ScanError::TooMany);
            }
            self.space()?;
            match self.next()? {
                b',' => {}
                b']' => return Ok(Listed::Items(items)),
                _ => return Err(ScanError::Malformed),
            }
        }
    }

    /// A string of a short value; nothing for any other.
    fn short_text(&mut self) -> Result<Option<String>, ScanError> {
        let mut kept = Kept::new(1024);
        self.value(Some(&mut kept))?;
        let mut canonical = Vec::new();
        if kept.is_over || canonicalize(&kept.bytes, &mut canonical).is_err() {
            return Ok(None);
        }
        Ok(Reader::new(&canonical).string().ok().flatten().map(|text| text.into_owned()))
    }
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(body: &[u8]) -> Vec<Option<Vec<u8>>> {
        let Ok(Envelope { items: Some(Listed::Items(items)), .. }) = envelope(&body) else {
            panic!("no items in {}", String::from_utf8_lossy(body))
        };
        let mut found = Vec::new();
        each_item::<ScanError>(&body, &items, 64, &mut |item| {
            found.push(item);
            Ok(())
        })
        .unwrap();
        assert_eq!(found.len() as u64, items.count);
        found
    }

    #[test]
    fn items_are_found_as_they_stand() {
        let found =
            items(br#" {"items" : [ {"a":"]}\"\\"} , 1,"x" ,[[]], nonsense ], "project_id":"p\u0041"} "#);
        let expected: [&[u8]; 5] = [br#"{"a":"]}\"\\"}"#, b"1", b"\"x\"", b"[[]]", b"nonsense"];
        assert_eq!(found.iter().map(|item| item.as_deref().unwrap()).collect::<Vec<_>>(), expected);
        assert!(items(br#"{"items":[]}"#).is_empty());
    }

    #[test]
    fn a_long_item_is_passed_over() {
        let body = format!(r#"{{"items":["{}",2,"{}"]}}"#, "x".repeat(63), "y".repeat(62));
        let found = items(body.as_bytes());
        assert_eq!(found[0], None);
        assert_eq!(found[1].as_deref(), Some(&b"2"[..]));
        assert_eq!(found[2].as_ref().map(Vec::len), Some(64));
    }

    #[test]
    fn strings_and_values_go_on_over_the_end_of_the_buffer() {
        for length in SPOOL_STEP_BYTES / 4 - 40..SPOOL_STEP_BYTES / 4 + 10 {
            let body = format!(r#"{{"pad":"{}\"","items":[{{"k":"v"}},12345]}}"#, "x".repeat(length));
            let found = items(body.as_bytes());
            assert_eq!(found[0].as_deref(), Some(&br#"{"k":"v"}"#[..]));
            assert_eq!(found[1].as_deref(), Some(&b"12345"[..]));
        }
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        let deep = "[".repeat(BODY_DEPTH_MAX + 1);
        let deep = format!("{{\"a\":{deep}");
        for body in [
            "",
            " ",
            "[]",
            "1",
            "{",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"items\":[1}",
            "{\"items\":[,]}",
            "{\"items\":[1,]}",
            "{\"items\":[{]}",
            "{\"a\":\"x",
            "{\"a\":\"\\",
            "\u{feff}{}",
            &deep,
        ] {
            assert!(matches!(envelope(&body.as_bytes()), Err(ScanError::Malformed)), "{body}");
        }
        assert_eq!(envelope(&&b" {} "[..]).unwrap(), Envelope::default());
    }

    #[test]
    fn members_of_other_shapes_are_seen() {
        let found =
            envelope(&&br#"{"project_id":7,"items":{"a":[1]},"conversation_contents":[3]}"#[..]).unwrap();
        assert_eq!(found.project, None);
        assert_eq!(found.items, Some(Listed::Other));
        assert!(matches!(found.contents, Some(Listed::Items(Items { count: 1, bytes_max: 1, .. }))));
        let found = envelope(&&br#"{"project_id":"a","project_id":"b"}"#[..]).unwrap();
        assert_eq!(found.project.as_deref(), Some("b"));
    }

    #[test]
    fn more_items_than_the_limit_are_too_many() {
        let body =
            |count: u64| format!("{{\"items\":[{}1]}}", "1,".repeat(usize::try_from(count - 1).unwrap()));
        assert!(envelope(&body(RECORDS_MAX).as_bytes()).is_ok());
        assert!(matches!(envelope(&body(RECORDS_MAX + 1).as_bytes()), Err(ScanError::TooMany)));
    }
}
