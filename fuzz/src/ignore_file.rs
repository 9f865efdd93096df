use dory_dockerfile::IgnorePatterns;

/// An ignore file, an empty line, and paths, one on each line: a walk that asks directory by directory comes to the same as
/// a question for the whole path.
pub fn ignore_file(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (file, paths) = text.split_once("\n\n").unwrap_or((&text, ""));
    let Ok(patterns) = IgnorePatterns::parse(file) else { return };
    for path in paths.lines().filter(|path| !path.is_empty()) {
        let mut verdict = dory_dockerfile::Verdict::default();
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            verdict = patterns.verdict(&path[..end], &verdict);
        }
        assert_eq!(verdict.excluded, patterns.excludes(path), "{path}");
        assert!(!verdict.excluded || !patterns.is_empty());
    }
}
