//! The items of a JSON array that is too long to hold, or of values that follow each other.
//!
//! Finds where items begin and end and nothing more: whether an item is JSON is for its reader to say. Commas may be
//! missing or too many.

/// One item and how many line ends stand before it in the bytes that were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) lines_before: u64,
}

/// Walks over the items in some bytes; what is not complete is left over.
pub(super) struct Items<'b> {
    bytes: &'b [u8],
    at: usize,
    counted: usize,
    lines: u64,
}

impl<'b> Items<'b> {
    /// Starts at the beginning of a file, or where an earlier walk has ended.
    pub(super) fn new(bytes: &'b [u8], at_start: bool) -> Items<'b> {
        let mut items = Items { bytes, at: 0, counted: 0, lines: 0 };
        if at_start {
            items.pass(|byte| byte.is_ascii_whitespace());
            items.at += usize::from(bytes.get(items.at) == Some(&b'['));
        }
        items
    }

    /// Where the last complete item ended.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    fn pass(&mut self, passed: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).is_some_and(|byte| passed(*byte)) {
            self.at += 1;
        }
    }

    /// The end of the item that starts here, if it is in the bytes.
    fn item_end(&self) -> Option<usize> {
        let mut at = self.at;
        let mut depth = 0usize;
        loop {
            match self.bytes.get(at)? {
                b'"' => {
                    at += 1;
                    loop {
                        at += memchr::memchr2(b'"', b'\\', self.bytes.get(at..)?)?;
                        if self.bytes[at] == b'"' {
                            break;
                        }
                        at += 2;
                    }
                }
                b'{' | b'[' => depth += 1,
                // The end of the array; at the start of an item it is one that no reader will take.
                b'}' | b']' if depth == 0 => return Some(at.max(self.at + 1)),
                b'}' | b']' => depth -= 1,
                b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return Some(at),
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(self.bytes[at - 1], b'"' | b'}' | b']') {
                return Some(at);
            }
        }
    }
}

impl<'b> Iterator for Items<'b> {
    type Item = Item<'b>;

    fn next(&mut self) -> Option<Item<'b>> {
        let before = self.at;
        self.pass(|byte| byte.is_ascii_whitespace() || byte == b',' || byte == b']');
        let Some(end) = self.item_end() else {
            // White space at the end belongs to what follows, or to nothing.
            if self.at < self.bytes.len() {
                self.at = before;
            }
            return None;
        };
        self.lines += memchr::memchr_iter(b'\n', &self.bytes[self.counted..self.at]).count() as u64;
        self.counted = self.at;
        let item = Item { bytes: &self.bytes[self.at..end], lines_before: self.lines };
        self.at = end;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_wherever_the_bytes_are_cut() {
        let text = "\n[ {\"a\":\"]},\\\"\"} ,\n[1,[2]],\"x\", 7\n,{}]\n";
        let all: Vec<(String, u64)> = Items::new(text.as_bytes(), true).map(owned).collect();
        assert_eq!(
            all,
            [("{\"a\":\"]},\\\"\"}", 1), ("[1,[2]]", 2), ("\"x\"", 2), ("7", 2), ("{}", 3)]
                .map(|(item, lines)| (item.to_owned(), lines))
        );
        for cut in 3..text.len() {
            let mut first = Items::new(&text.as_bytes()[..cut], true);
            let mut found: Vec<(String, u64)> = first.by_ref().map(owned).collect();
            let lines = text[..first.end()].matches('\n').count() as u64;
            let rest = Items::new(&text.as_bytes()[first.end()..], false).map(owned);
            found.extend(rest.map(|(item, before)| (item, before + lines)));
            assert_eq!(found, all, "cut at {cut}");
        }
    }

    fn owned(item: Item<'_>) -> (String, u64) {
        (String::from_utf8(item.bytes.to_vec()).unwrap(), item.lines_before)
    }
}
