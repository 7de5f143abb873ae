//! ZIP archives of the plain kind: their directory of members, and the bytes of these.
//!
//! Python's `zipfile` reads every archive, and takes half a second for a directory of 50,000 members. An archive is read here
//! only where the directory says one thing to any reader: nothing before or after it but its end records, names in ASCII or marked
//! as UTF-8, extra fields that add up. The format is that of PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use libdeflater::{Crc, Decompressor};

use super::buffer::resize;

const END: usize = 22;
const END_MAGIC: &[u8] = b"PK\x05\x06";
const END_64: usize = 56;
const END_64_MAGIC: &[u8] = b"PK\x06\x06";
const LOCATOR: usize = 20;
const LOCATOR_MAGIC: &[u8] = b"PK\x06\x07";
const ENTRY: usize = 46;
const ENTRY_MAGIC: &[u8] = b"PK\x01\x02";
const LOCAL: usize = 30;
const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";

/// Most bytes of a directory that is read at once: that of ten million members.
const MAX_DIRECTORY: u64 = 1 << 30;

/// The newest version of the format, times ten, that readers have to know.
const MAX_VERSION: u8 = 63;

/// Flags that change nothing for a reader of the directory: how well a member is compressed, sizes that stand behind it too, and
/// a name in UTF-8.
const KNOWN_FLAGS: u16 = 0x6 | 0x8 | UTF_8;
const UTF_8: u16 = 0x800;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// A deflate stream expands by at most this factor.
const MAX_EXPANSION: u64 = 1032;

/// What stands for a size in an extra field of 64 bits.
const IN_EXTRA: u32 = u32::MAX;
const EXTRA_64: u16 = 1;
/// Another name, in UTF-8, which some readers take instead.
const EXTRA_NAME: u16 = 0x7075;

/// An archive of the plain kind, open for reading.
pub struct Archive {
    file: File,
    directory: Vec<u8>,
    members: Vec<Member>,
}

/// One entry of the directory.
struct Member {
    /// Where in the directory its name is.
    name: Range<usize>,
    flags: u16,
    method: u16,
    crc: u32,
    /// Bytes in the archive.
    stored: u64,
    /// Bytes of the member itself.
    size: u64,
    /// Where its local header begins.
    offset: u64,
    /// Where the next member or the directory begins.
    end: u64,
}

/// Memory for the bytes of members, used again from one to the next.
pub struct MemberBuffers {
    read: Vec<u8>,
    inflated: Vec<u8>,
    decompressor: Decompressor,
}

impl Default for MemberBuffers {
    fn default() -> Self {
        Self { read: Vec::new(), inflated: Vec::new(), decompressor: Decompressor::new() }
    }
}

impl Archive {
    /// The archive in a file; none if it is not a plain one, or cannot be read.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        // Opening a named pipe would wait for its other end.
        path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let mut file = File::open(path).ok()?;
        let (start, directory) = read_directory(&mut file)?;
        let members = members_of(&directory, start)?;
        Some(Self { file, directory, members })
    }

    /// The bytes of the directory: names, sizes, places and checksums of all members.
    #[must_use]
    pub fn directory(&self) -> &[u8] {
        &self.directory
    }

    /// The names of the members, in the order of the directory.
    #[must_use]
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        // They were checked when the archive was opened.
        self.members.iter().map(|member| str::from_utf8(&self.directory[member.name.clone()]).unwrap_or_default())
    }

    /// The bytes of a member, at most `limit`; none if there is no such member, if it is larger, damaged or compressed in another
    /// way than deflated.
    pub fn read<'b>(&self, index: usize, limit: usize, buffers: &'b mut MemberBuffers) -> Option<&'b [u8]> {
        let member = self.members.get(index)?;
        let size = usize::try_from(member.size).ok().filter(|&size| size <= limit)?;
        let bytes = self.read_stored(member, limit, &mut buffers.read)?;
        let bytes = match member.method {
            STORED if bytes.len() == size => bytes,
            DEFLATED => {
                resize(&mut buffers.inflated, size)?;
                let len = buffers.decompressor.deflate_decompress(bytes, &mut buffers.inflated).ok()?;
                if len != size {
                    return None;
                }
                &buffers.inflated
            }
            _ => return None,
        };
        let mut crc = Crc::new();
        crc.update(bytes);
        (crc.sum() == member.crc).then_some(bytes)
    }

    /// The bytes of a member as they are stored, after its local header.
    fn read_stored<'b>(&self, member: &Member, limit: usize, bytes: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        if member.flags & !KNOWN_FLAGS != 0 || member.size > member.stored.saturating_mul(MAX_EXPANSION) {
            return None;
        }
        let name = &self.directory[member.name.clone()];
        let stored = usize::try_from(member.stored).ok().filter(|&stored| stored <= limit)?;
        let mut start = LOCAL + name.len();
        resize(bytes, start + stored)?;
        read_at(&self.file, bytes, member.offset).ok()?;
        let local_flags = u16_at(bytes, 6)?;
        let is_same = bytes.starts_with(LOCAL_MAGIC)
            && usize::from(u16_at(bytes, 26)?) == name.len()
            && bytes.get(LOCAL..start)? == name
            && (name.is_ascii() || local_flags & UTF_8 != 0);
        let extra = usize::from(u16_at(bytes, 28)?);
        if !is_same || member.offset.checked_add((start + extra + stored) as u64)? > member.end {
            return None;
        }
        if extra > 0 {
            start += extra;
            resize(bytes, stored)?;
            read_at(&self.file, bytes, member.offset + start as u64).ok()?;
            return Some(bytes);
        }
        bytes.get(start..)
    }
}

/// Where the directory begins, and its bytes.
fn read_directory(file: &mut File) -> Option<(u64, Vec<u8>)> {
    let len = file.seek(SeekFrom::End(0)).ok()?;
    let mut tail = vec![0; usize::try_from(len.min((END_64 + LOCATOR + END) as u64)).ok()?];
    file.seek(SeekFrom::Start(len - tail.len() as u64)).ok()?;
    file.read_exact(&mut tail).ok()?;
    let (rest, end) = tail.split_at_checked(tail.len().checked_sub(END)?)?;
    // A comment at the end could hold another end record.
    if !end.starts_with(END_MAGIC) || u16_at(end, 20)? != 0 {
        return None;
    }
    let at_end = len - END as u64;
    let (size, start, found) = match rest.split_at_checked(rest.len().saturating_sub(LOCATOR)) {
        Some((rest, locator)) if locator.starts_with(LOCATOR_MAGIC) => {
            let record = rest.get(rest.len().checked_sub(END_64)?..)?;
            let at_record = at_end.checked_sub((LOCATOR + END_64) as u64)?;
            let is_plain = record.starts_with(END_64_MAGIC)
                && u64_at(record, 4)? == (END_64 - 12) as u64
                && u32_at(locator, 4)? == 0
                && u64_at(locator, 8)? == at_record
                && u32_at(locator, 16)? <= 1;
            is_plain.then_some(())?;
            (u64_at(record, 40)?, u64_at(record, 48)?, at_record)
        }
        _ => (u64::from(u32_at(end, 12)?), u64::from(u32_at(end, 16)?), at_end),
    };
    if start.checked_add(size)? != found || size > MAX_DIRECTORY {
        return None;
    }
    let mut directory = Vec::new();
    resize(&mut directory, usize::try_from(size).ok()?)?;
    file.seek(SeekFrom::Start(start)).ok()?;
    file.read_exact(&mut directory).ok()?;
    Some((start, directory))
}

/// The members of a directory that begins at `start`.
fn members_of(directory: &[u8], start: u64) -> Option<Vec<Member>> {
    let (mut members, mut at) = (Vec::new(), 0);
    while at < directory.len() {
        let (member, next) = member_at(directory, at)?;
        members.push(member);
        at = next;
    }
    let mut by_offset: Vec<usize> = (0..members.len()).collect();
    // In reverse, and then the order of the directory, as zipfile has it for members that begin at the same place.
    by_offset.sort_by_key(|&index| std::cmp::Reverse(members[index].offset));
    let mut end = start;
    for index in by_offset {
        members[index].end = end;
        end = members[index].offset;
    }
    Some(members)
}

/// The member whose entry begins at a place, and the place of the next entry.
fn member_at(directory: &[u8], at: usize) -> Option<(Member, usize)> {
    let entry = directory.get(at..)?;
    if !entry.starts_with(ENTRY_MAGIC) || *entry.get(6)? > MAX_VERSION {
        return None;
    }
    let [name_len, extra_len, comment_len] =
        [u16_at(entry, 28)?, u16_at(entry, 30)?, u16_at(entry, 32)?].map(usize::from);
    let name = ENTRY..ENTRY + name_len;
    let extra = name.end..name.end + extra_len;
    let next = extra.end + comment_len;
    let flags = u16_at(entry, 8)?;
    is_plain_name(entry.get(name.clone())?, flags).then_some(())?;
    let (mut size, mut stored) = (u64::from(u32_at(entry, 24)?), u64::from(u32_at(entry, 20)?));
    let mut offset = u64::from(u32_at(entry, 42)?);
    read_extra(entry.get(extra)?, [&mut size, &mut stored, &mut offset])?;
    (next <= entry.len()).then_some(())?;
    let method = u16_at(entry, 10)?;
    let name = at + name.start..at + name.end;
    Some((Member { name, flags, method, crc: u32_at(entry, 16)?, stored, size, offset, end: 0 }, at + next))
}

/// Whether any reader takes a name for the same.
fn is_plain_name(name: &[u8], flags: u16) -> bool {
    let has_encoding = name.is_ascii() || (flags & UTF_8 != 0 && str::from_utf8(name).is_ok());
    has_encoding && !name.contains(&0)
}

/// Takes sizes of 64 bits from the extra fields of a member; none if these do not add up, or hold another name.
fn read_extra(mut extra: &[u8], mut values: [&mut u64; 3]) -> Option<()> {
    while !extra.is_empty() {
        let (kind, len) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let mut content = extra.get(4..4 + len)?;
        match kind {
            EXTRA_64 => {
                for value in values.iter_mut().filter(|value| ***value == u64::from(IN_EXTRA)) {
                    **value = u64_at(content, 0)?;
                    content = &content[8..];
                }
            }
            EXTRA_NAME => return None,
            _ => {}
        }
        extra = &extra[4 + len..];
    }
    Some(())
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The entry of a member in the directory.
    fn entry(name: &[u8], flags: u16, extra: &[u8]) -> Vec<u8> {
        let mut entry = [ENTRY_MAGIC, &[0; ENTRY - 4]].concat();
        entry[8..10].copy_from_slice(&flags.to_le_bytes());
        entry[20..28].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0]);
        entry[28..30].copy_from_slice(&(name.len() as u16).to_le_bytes());
        entry[30..32].copy_from_slice(&(extra.len() as u16).to_le_bytes());
        entry.extend([name, extra].concat());
        entry
    }

    fn extra(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes(), &(content.len() as u16).to_le_bytes(), content].concat()
    }

    #[test]
    fn sizes_of_64_bits_come_from_the_extra_fields() {
        let large = (5_u64 << 32).to_le_bytes();
        let directory = entry(b"a", 0, &[extra(9, b"other"), extra(EXTRA_64, &large)].concat());
        let members = members_of(&directory, 1 << 40).unwrap();
        assert_eq!((members[0].stored, members[0].size, members[0].end), (5 << 32, 7, 1 << 40));
        assert!(members_of(&entry(b"a", 0, &extra(EXTRA_64, &large[..7])), 0).is_none());
        assert!(members_of(&directory[..directory.len() - 1], 0).is_none());
    }

    #[test]
    fn names_that_readers_may_take_for_others_are_refused() {
        let is_plain = |name: &[u8], flags, extra: &[u8]| members_of(&entry(name, flags, extra), 0).is_some();
        assert!(is_plain(b"a/b.png", 0, b"") && is_plain("\u{fc}.png".as_bytes(), UTF_8, b""));
        assert!(!is_plain("\u{fc}.png".as_bytes(), 0, b"") && !is_plain(b"\xff.png", UTF_8, b""));
        assert!(!is_plain(b"a\0b.png", 0, b"") && !is_plain(b"a", 0, &extra(EXTRA_NAME, b"\x01name")));
    }

    proptest! {
        #[test]
        fn damaged_directories_do_no_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            start in any::<u64>(),
        ) {
            let mut directory = [entry(b"a", 0, &extra(EXTRA_64, &[1; 8])), entry(b"b", UTF_8, b"")].concat();
            for (place, value) in changes {
                let place = place.index(directory.len());
                directory[place] = value;
            }
            let _ = members_of(&directory, start);
        }
    }
}
