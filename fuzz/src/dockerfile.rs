use std::collections::BTreeMap;

use dory_dockerfile::{
    CheckOptions, EXPANSION_LENGTH_MAX, Instruction, Lexer, LineRange, Mount, check, parse,
};

/// A Dockerfile: whatever is read, warned of or refused stands in lines that the file has and can be shown; variables
/// expand within their bound.
pub fn dockerfile(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    // An open continuation counts the line that it waits for.
    let last = u32::try_from(text.lines().count() + 1).expect("inputs are short");
    let inside = |lines: &LineRange| lines.first <= lines.last && lines.last <= last;
    let file = match parse(input) {
        Ok(file) => file,
        Err(error) => {
            assert!(inside(&error.lines), "{error:?}");
            let _ = (error.excerpt(&text).len(), error.to_string().len());
            return;
        }
    };
    for warning in check(&file, &CheckOptions::default()) {
        assert!(inside(&warning.lines), "{warning:?}");
        let _ = (warning.excerpt(&text).len(), warning.url().len());
    }
    let variables: BTreeMap<String, String> = [("A", "value"), ("B", ""), ("PATH", "/bin:/usr/bin")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let lexer = Lexer::new(file.directives.escape_token());
    let expand = |text: &str| lexer.expand(text, &variables).map(|expansion| expansion.text);
    for stage in &file.stages {
        assert!(inside(&stage.lines), "{stage:?}");
        assert!(stage.value.name.as_deref().is_none_or(|name| file.stage(name, None).is_some()), "{stage:?}");
        for instruction in &stage.value.instructions {
            assert!(inside(&instruction.lines), "{instruction:?}");
            let expanded = expand(&instruction.text).unwrap_or_default();
            assert!(expanded.len() <= EXPANSION_LENGTH_MAX, "{instruction:?}");
            if let Instruction::Run(run) = &instruction.value {
                for mount in &run.mounts {
                    let _ = Mount::parse(mount, expand).is_ok();
                }
            }
        }
    }
}
