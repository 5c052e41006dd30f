//! Patterns of paths: `*` and `?` stand for characters of one name, `**` for any, folders included.

/// Whether a path fits a pattern, all of it.
pub(crate) fn fits(pattern: &str, path: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let path: Vec<char> = path.chars().collect();
    // By pattern and path: whether the rest fits. Each pair is looked at once, so nothing takes for ever.
    let mut row = vec![false; path.len() + 1];
    row[path.len()] = true;
    let mut at = pattern.len();
    while at > 0 {
        at -= 1;
        let deep = pattern[at] == '*' && at > 0 && pattern[at - 1] == '*';
        let mut next = vec![false; path.len() + 1];
        for place in (0..=path.len()).rev() {
            let here = path.get(place);
            next[place] = match pattern[at] {
                '*' => row[place] || here.is_some_and(|char| (deep || *char != '/') && next[place + 1]),
                '?' => here.is_some_and(|char| *char != '/') && row[place + 1],
                wanted => here == Some(&wanted) && row[place + 1],
            };
        }
        if deep {
            at -= 1;
            // `**/` stands for no folder too.
            if pattern.get(at + 2) == Some(&'/') {
                let none = rest_fits(&pattern[at + 3..], &path);
                next.iter_mut().zip(none).for_each(|(fits, none)| *fits = *fits || none);
            }
        }
        row = next;
    }
    row[0]
}

/// For each place of a path, whether what starts there fits a pattern.
fn rest_fits(pattern: &[char], path: &[char]) -> Vec<bool> {
    let pattern: String = pattern.iter().collect();
    let starts = |place: usize| place == 0 || path[place - 1] == '/';
    (0..=path.len())
        .map(|place| starts(place) && fits(&pattern, &path[place..].iter().collect::<String>()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_whole_paths() {
        for (pattern, path, expected) in [
            ("src/a.rs", "src/a.rs", true),
            ("src/a.rs", "src/a.rss", false),
            ("src/*.rs", "src/a.rs", true),
            ("src/*.rs", "src/b/a.rs", false),
            ("src/**", "src/b/a.rs", true),
            ("**/a.rs", "src/b/a.rs", true),
            ("**/a.rs", "a.rs", true),
            ("**/a.rs", "ba.rs", false),
            ("src/**/a.rs", "src/a.rs", true),
            ("src/**/a.rs", "src/b/c/a.rs", true),
            ("src/**/a.rs", "srcb/a.rs", false),
            ("?.rs", "a.rs", true),
            ("?.rs", "/.rs", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**", "a/b", true),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
        assert!(!fits(&"*a".repeat(60), &"a".repeat(59)), "no pattern takes for ever");
    }
}
