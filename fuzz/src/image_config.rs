use dory_store::ImageConfig;

/// An image's configuration.
///
/// What is read can be written, and read again as the same.
pub fn image_config(input: &[u8]) {
    let Ok(config) = ImageConfig::parse(input) else { return };
    let written = serde_json::to_vec(&config).expect("a configuration can be written");
    assert_eq!(ImageConfig::parse(&written).expect("what was written can be read"), config);
    assert_eq!(config.chain_ids().len(), config.rootfs.diff_ids.len());
}
