//! `docker load`: from an archive's stream to images, with layers unpacked side by side while the stream arrives.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use dory_types::{Digest, ImageId, ImageReference};
use tar::EntryType;

use super::ImageConfig;
use super::archive::{self, ArchiveError, ArchivedImage, Documents, check_layer_count, clean};
use super::member::{Spool, SpoolReader};
use crate::compression::{Compression, SNIFF_LENGTH, decompress, sniff};
use crate::error::StoreError;
use crate::layer::ExtractError;
use crate::store::{Change, ExpectedLayer, LayerLease, Store};
use crate::tar_stream::{Entry, TarStream, looks_like_tar};

/// The buffer behind the archive's stream, in bytes; also the unit in which members are handed on.
const BUFFER: usize = 256 << 10;
/// The longest document that is kept, in bytes; larger members that are no layers are passed over.
const DOCUMENT_LENGTH_MAX: u64 = 8 << 20;
/// All documents together, in bytes.
const DOCUMENTS_LENGTH_MAX: usize = 64 << 20;
/// How many layers an archive may have for all of its images.
const LAYERS_MAX: usize = 10_000;

/// How far the reading of an archive is; called on the reading thread for each piece.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress<'a> {
    /// The member that is being read: a layer.
    pub member: &'a str,
    /// Bytes of it that were read.
    pub current: u64,
    /// Its length in bytes.
    pub total: u64,
}

/// Says whether an image is wanted, by the name that people know it by and its configuration; else why it is not.
pub type Acceptance<'a> = dyn Fn(&str, &ImageConfig) -> Result<(), String> + 'a;

/// An image that an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its id.
    pub id: ImageId,
    /// The names that now mean it.
    pub references: Vec<ImageReference>,
    /// Names that meant another image before, and that image.
    pub displaced: Vec<(ImageReference, ImageId)>,
}

/// A member on its way to a thread that unpacks it.
struct Job {
    name: String,
    spool: Arc<Spool>,
}

/// Layers by member name: held until the images that need them are in the index.
type Layers = HashMap<String, Result<(LayerLease, BlobIdentity), ExtractError>>;

/// Digest and length of a layer's member.
type BlobIdentity = (Digest, u64);

/// An image that is known to be right.
struct PlannedImage {
    config: Vec<u8>,
    references: Vec<ImageReference>,
    diff_ids: Vec<Digest>,
}

/// What an archive had.
#[derive(Default)]
struct Contents {
    documents: Documents,
    layers: Layers,
}

impl Store {
    /// Reads a `docker save` archive or an OCI image layout, either of them compressed or not, and takes its images
    /// and their names in. Either all of them are there afterwards, or none.
    ///
    /// # Errors
    /// [`StoreError::Archive`] and [`StoreError::Extract`] for what the archive has wrong, others for the store's
    /// own troubles.
    pub fn load(
        self: &Arc<Self>,
        archive: impl Read + Send,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Vec<LoadedImage>, StoreError> {
        self.load_accepted(archive, &|_, _| Ok(()), on_progress)
    }

    /// As [`Store::load`]; an image that `accept` refuses refuses the archive.
    ///
    /// # Errors
    /// As [`Store::load`]; [`StoreError::Refused`] with the words of `accept`.
    pub fn load_accepted(
        self: &Arc<Self>,
        archive: impl Read + Send,
        accept: &Acceptance<'_>,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Vec<LoadedImage>, StoreError> {
        let (start, source) = sniff(archive).map_err(ArchiveError::Read)?;
        let source = decompress(source, Compression::of(&start)).map_err(ArchiveError::Read)?;
        let mut contents = self.read_contents(source, on_progress)?;
        let images = archive::images(&contents.documents, go_architecture())?;
        let mut planned = Vec::new();
        for image in images {
            planned.push(plan(image, accept, &mut contents.layers)?);
        }
        self.commit_images(planned, contents.layers)
    }

    /// Reads the whole stream; layers are unpacked meanwhile.
    fn read_contents(
        self: &Arc<Self>,
        source: impl Read,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Contents, StoreError> {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let (sender, receiver) = mpsc::sync_channel::<Job>(threads);
        let receiver = Mutex::new(receiver);
        let layers = Mutex::new(Layers::new());
        let documents = thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.unpack_jobs(&receiver, &layers));
            }
            // The sender dies with this closure's end, and with it the threads.
            let mut reader = ArchiveReader {
                store: self,
                jobs: sender,
                documents: Documents::default(),
                total: 0,
                layers: 0,
            };
            reader.read(source, on_progress).map(|()| reader.documents)
        })?;
        Ok(Contents { documents, layers: layers.into_inner().unwrap_or_else(PoisonError::into_inner) })
    }

    /// A thread's work: one member after the other.
    fn unpack_jobs(self: &Arc<Self>, jobs: &Mutex<Receiver<Job>>, layers: &Mutex<Layers>) {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            let unpacked = self.take_in_layer(&job.name, || job.spool.reader());
            layers.lock().unwrap_or_else(PoisonError::into_inner).insert(job.name, unpacked);
        }
    }

    /// Unpacks a member, unless its name and its digest say that the layer is there already.
    fn take_in_layer(
        self: &Arc<Self>,
        name: &str,
        open: impl Fn() -> SpoolReader,
    ) -> Result<(LayerLease, BlobIdentity), ExtractError> {
        let claimed = name.split('/').filter_map(|component| Digest::from_hex(component).ok()).next_back();
        if let Some((claimed, lease)) =
            claimed.and_then(|claimed| Some((claimed, self.lease_layer(&claimed)?)))
        {
            let found = crate::layer::digest(open()).map_err(ExtractError::Read)?;
            if found.0 == claimed {
                return Ok((lease, found));
            }
        }
        let lease = self.ingest(open(), &ExpectedLayer::default())?;
        let blob = lease.blob();
        Ok((lease, blob))
    }

    /// Gives layers and configurations their names and takes the images into the index.
    fn commit_images(
        &self,
        images: Vec<PlannedImage>,
        layers: Layers,
    ) -> Result<Vec<LoadedImage>, StoreError> {
        let needed: HashSet<Digest> = images.iter().flat_map(|image| &image.diff_ids).copied().collect();
        let needed = |lease: &LayerLease| needed.contains(&lease.diff_id());
        // The others go with the end of this statement: no image has them.
        let leases = layers.into_values().flatten().map(|(lease, _)| lease).filter(needed).collect();
        let mut change = self.change(leases)?;
        let mut loaded = Vec::new();
        for PlannedImage { config, references, .. } in images {
            let id = change.add_image(&config)?;
            let displaced = set_references(&mut change, &references, &id);
            loaded.push(LoadedImage { id, references, displaced });
        }
        change.commit()?;
        Ok(loaded)
    }
}

/// Lets every name mean `id`; those that meant another image.
fn set_references(
    change: &mut Change<'_>,
    references: &[ImageReference],
    id: &ImageId,
) -> Vec<(ImageReference, ImageId)> {
    let displaced = references.iter().filter_map(|reference| {
        let previous = change.index.set_reference(reference.clone(), id)?;
        Some((reference.clone(), previous))
    });
    displaced.collect()
}

/// Checks an image against the layers that came with it: its configuration, names and diff-ids.
fn plan(
    image: ArchivedImage,
    accept: &Acceptance<'_>,
    layers: &mut Layers,
) -> Result<PlannedImage, StoreError> {
    let config = ImageConfig::parse(&image.config)
        .map_err(|source| StoreError::Config { image: Digest::of(&image.config), source })?;
    let name = image.references.first().map_or_else(|| digest_name(&image.config), ImageReference::familiar);
    accept(&name, &config).map_err(StoreError::Refused)?;
    let diff_ids = config.rootfs.diff_ids;
    check_layer_count(&diff_ids)?;
    if image.layers.len() != diff_ids.len() {
        return Err(ArchiveError::LayerCount { expected: image.layers.len(), found: diff_ids.len() }.into());
    }
    for (index, (layer, expected)) in image.layers.iter().zip(&diff_ids).enumerate() {
        if let Some(Err(_)) = layers.get(&layer.member)
            && let Some(Err(source)) = layers.remove(&layer.member)
        {
            return Err(StoreError::Extract { layer: layer.member.clone(), source });
        }
        let Some(Ok((lease, blob))) = layers.get(&layer.member) else {
            return Err(ArchiveError::Missing(layer.member.clone()).into());
        };
        if layer.blob.is_some_and(|stated| stated != *blob) {
            return Err(ArchiveError::Blob(blob.0).into());
        }
        if lease.diff_id() != *expected {
            return Err(ArchiveError::DiffId { index, expected: *expected, found: lease.diff_id() }.into());
        }
    }
    Ok(PlannedImage { config: image.config, references: image.references, diff_ids })
}

/// What an image without a name is called.
fn digest_name(config: &[u8]) -> String {
    Digest::of(config).to_string()
}

/// Goes through the archive: documents into memory, what looks like a layer to the threads.
struct ArchiveReader<'a> {
    store: &'a Store,
    jobs: mpsc::SyncSender<Job>,
    documents: Documents,
    /// Length of all documents, in bytes.
    total: usize,
    /// How many members were taken for layers.
    layers: usize,
}

impl ArchiveReader<'_> {
    fn read(
        &mut self,
        source: impl Read,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<(), StoreError> {
        let mut archive = TarStream::new(BufReader::with_capacity(BUFFER, source));
        while let Some(entry) = archive.next_entry().map_err(ArchiveError::Tar)? {
            let name = clean(&entry.display())?;
            match entry.kind {
                EntryType::Regular => self.member(name, &entry, &mut archive, on_progress)?,
                EntryType::Symlink | EntryType::Link => {
                    let target = String::from_utf8_lossy(&entry.link_name);
                    self.documents.add_link(&name, &target, entry.kind == EntryType::Symlink)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes one file in.
    fn member<R: BufRead>(
        &mut self,
        name: String,
        entry: &Entry,
        archive: &mut TarStream<R>,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<(), StoreError> {
        let mut start = Vec::with_capacity(SNIFF_LENGTH);
        archive.by_ref().take(SNIFF_LENGTH as u64).read_to_end(&mut start).map_err(ArchiveError::Read)?;
        let mut member = start.as_slice().chain(archive);
        if Compression::of(&start) != Compression::None || looks_like_tar(&start) {
            return self.layer(&name, entry.size, &mut member, on_progress);
        }
        if entry.size > DOCUMENT_LENGTH_MAX {
            return Ok(());
        }
        let mut content = Vec::new();
        member.read_to_end(&mut content).map_err(ArchiveError::Read)?;
        self.total += content.len();
        if self.total > DOCUMENTS_LENGTH_MAX {
            return Err(ArchiveError::TooLarge.into());
        }
        match self.documents.files.insert(name.clone(), content) {
            Some(previous) if previous != self.documents.files[&name] => {
                Err(ArchiveError::Duplicate(name).into())
            }
            _ => Ok(()),
        }
    }

    /// Hands a layer on and copies it into the spool that its thread reads.
    fn layer(
        &mut self,
        name: &str,
        total: u64,
        member: &mut impl BufRead,
        on_progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<(), StoreError> {
        let spool = Arc::new(Spool::new(self.store.temporary()).map_err(ArchiveError::Read)?);
        self.layers += 1;
        if self.layers > LAYERS_MAX {
            return Err(ArchiveError::TooManyMembers(LAYERS_MAX).into());
        }
        // Waits while all threads are busy: they work on members that are complete.
        if self.jobs.send(Job { name: name.to_owned(), spool: Arc::clone(&spool) }).is_err() {
            return Ok(());
        }
        let filled = spool.fill(member, |current| on_progress(LoadProgress { member: name, current, total }));
        Ok(filled.map_err(ArchiveError::Read)?)
    }
}

/// This machine's architecture as Go and with it every image names it.
pub(super) fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}
