/// What stands behind `-v`, `--volumes-from`, `--tmpfs` and a volume's option `o`, one on each line: what is accepted names
/// an absolute, clean path in the container.
pub fn mount_text(input: &[u8]) {
    for line in String::from_utf8_lossy(input).lines() {
        dory_engine::fuzzing::mount_text(line);
    }
}
