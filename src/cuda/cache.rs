//! Compiled kernels on disk, a file each that begins with a checksum; a damaged file counts as absent.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const MAGIC: &[u8; 8] = b"pspccub1";

/// The compiled kernels in a folder; without one, nothing is kept.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// What was stored under `key`, if the file is whole.
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let file = fs::read(self.path(key)?).ok()?;
        let (magic, rest) = file.split_at_checked(MAGIC.len())?;
        let (sum, content) = rest.split_at_checked(8)?;
        let whole = magic == MAGIC && sum == checksum(content).to_le_bytes();
        whole.then(|| content.to_vec())
    }

    /// Stores `content` under `key`: a new file replaces the old one atomically. Where the folder cannot be written to,
    /// nothing is stored, and the next process compiles again.
    pub(super) fn put(&self, key: &str, content: &[u8]) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(path) = self.path(key) else { return };
        let part = path.with_extension(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        if write(&part, content).and_then(|()| fs::rename(&part, &path)).is_err() {
            let _ = fs::remove_file(&part);
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{key}.cubin")))
    }
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create_new(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&checksum(content).to_le_bytes())?;
    file.write_all(content)?;
    file.sync_all()
}

/// FNV-1a, 64 bits: enough against accidents.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> Cache {
        let folder = std::env::temp_dir().join(format!("pspc-rs-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Cache::new(Some(folder))
    }

    #[test]
    fn what_is_stored_is_found_and_what_is_damaged_is_not() {
        let cache = cache("damaged");
        assert_eq!(cache.get("a"), None);
        cache.put("a", b"kernels");
        cache.put("a", b"better kernels");
        assert_eq!(cache.get("a").as_deref(), Some(&b"better kernels"[..]));
        let path = cache.path("a").unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..10], &whole[..3], b""] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.get("a"), None);
        }
        let mut flipped = whole;
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(cache.get("a"), None);
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no part of a file stays behind");
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let cache = Cache::new(None);
        cache.put("a", b"kernels");
        assert_eq!(cache.get("a"), None);
    }
}
