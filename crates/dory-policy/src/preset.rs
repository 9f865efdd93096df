//! The presets that come along, as the files that people would write.

/// Their names.
pub const NAMES: &[&str] = &["read-only", "build-only", "ci", "testcontainers", "dev", "unrestricted"];

/// The file of a preset.
pub fn text(name: &str) -> Option<&'static str> {
    Some(match name {
        "read-only" => include_str!("../presets/read-only.toml"),
        "build-only" => include_str!("../presets/build-only.toml"),
        "ci" => include_str!("../presets/ci.toml"),
        "testcontainers" => include_str!("../presets/testcontainers.toml"),
        "dev" => include_str!("../presets/dev.toml"),
        "unrestricted" => include_str!("../presets/unrestricted.toml"),
        _ => return None,
    })
}
