//! Plain PNG files: 8 bits per channel, grey or colour, with alpha or without, not interlaced, nothing damaged.
//!
//! Written out because most images of data sets are small: a decoder for any PNG takes half as long again for the same pixels,
//! for what it sets up per file. The format is that of the PNG specification, third edition (W3C, 2025).

use libdeflater::{Crc, Decompressor};

use super::buffer::{append, resize};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Length and kind before the content of a chunk.
const CHUNK_HEADER: usize = 8;

/// Bytes of the checksum after it.
const CHECKSUM: usize = 4;

/// Most bytes of a chunk of text: other readers have limits on text, far above this.
const MAX_TEXT: usize = 1 << 16;

/// Decodes files of one size, one after the other, in memory that is used again.
pub struct Decoder {
    /// Channels, height and width.
    shape: [usize; 3],
    compressed: Vec<u8>,
    /// The filtered rows, each after the byte that says how; then the pixels, in place.
    rows: Vec<u8>,
    decompressor: Decompressor,
}

impl Decoder {
    /// A decoder for images of `shape` (channels, height, width).
    #[must_use]
    pub fn new(shape: [usize; 3]) -> Self {
        Self { shape, compressed: Vec::new(), rows: Vec::new(), decompressor: Decompressor::new() }
    }

    /// Writes the image of a file to `pixels` `[channels, height, width]`; none if the file is not a plain PNG of the shape, and
    /// then the pixels are unspecified.
    pub fn decode(&mut self, file: &[u8], pixels: &mut [u8]) -> Option<()> {
        match self.shape[0] {
            1 => self.decode_channels::<1>(file, pixels),
            2 => self.decode_channels::<2>(file, pixels),
            3 => self.decode_channels::<3>(file, pixels),
            4 => self.decode_channels::<4>(file, pixels),
            _ => None,
        }
    }

    fn decode_channels<const C: usize>(&mut self, file: &[u8], pixels: &mut [u8]) -> Option<()> {
        let [_, height, width] = self.shape;
        let stride = width.checked_mul(C)?.checked_add(1)?;
        let plane = height.checked_mul(width).filter(|&plane| plane > 0 && plane * C == pixels.len())?;
        let stream = self.image_data(file)?;
        resize(&mut self.rows, stride.checked_mul(height)?)?;
        let compressed = match stream {
            Stream::InPlace(bytes) => bytes,
            Stream::Joined => &self.compressed,
        };
        let len = self.decompressor.zlib_decompress(compressed, &mut self.rows).ok()?;
        if len != self.rows.len() {
            return None;
        }
        unfilter::<C>(&mut self.rows, stride)?;
        separate::<C>(&self.rows, stride, plane, pixels);
        Some(())
    }

    /// The compressed pixels of a plain PNG of the shape.
    fn image_data<'f>(&mut self, file: &'f [u8]) -> Option<Stream<'f>> {
        let mut chunks = Chunks { rest: file.strip_prefix(SIGNATURE)? };
        if chunks.next()? != (*b"IHDR", header_of(self.shape)?.as_slice()) {
            return None;
        }
        let (mut first, mut parts) = (None, 0);
        let mut is_in_data = false;
        loop {
            let (kind, content) = chunks.next()?;
            match &kind {
                b"IEND" if parts > 0 && content.is_empty() && chunks.rest.is_empty() => break,
                b"IDAT" if parts == 0 || is_in_data => {
                    match parts {
                        0 => first = Some(content),
                        1 => self.start_joining(first?, content)?,
                        _ => append(&mut self.compressed, content)?,
                    }
                    parts += 1;
                }
                _ if has_no_effect(kind, content) => {}
                _ => return None,
            }
            is_in_data = kind == *b"IDAT";
        }
        Some(if parts == 1 { Stream::InPlace(first?) } else { Stream::Joined })
    }

    fn start_joining(&mut self, first: &[u8], second: &[u8]) -> Option<()> {
        self.compressed.clear();
        append(&mut self.compressed, first)?;
        append(&mut self.compressed, second)
    }
}

/// Where the compressed pixels are: in one chunk of the file, or joined from several.
enum Stream<'f> {
    InPlace(&'f [u8]),
    Joined,
}

/// The chunks of a file, as far as they are whole.
struct Chunks<'f> {
    rest: &'f [u8],
}

impl<'f> Chunks<'f> {
    /// Kind and content of the next chunk; none at the end of the file, or where it is damaged.
    fn next(&mut self) -> Option<([u8; 4], &'f [u8])> {
        let len = u32::from_be_bytes(*self.rest.first_chunk()?) as usize;
        let end = len.checked_add(CHUNK_HEADER)?;
        let checked = self.rest.get(4..end)?;
        let stored = u32::from_be_bytes(*self.rest.get(end..)?.first_chunk()?);
        let mut crc = Crc::new();
        crc.update(checked);
        self.rest = &self.rest[end + CHECKSUM..];
        (crc.sum() == stored).then_some((*checked.first_chunk()?, &checked[4..]))
    }
}

/// The content of the header of a plain PNG.
fn header_of([channels, height, width]: [usize; 3]) -> Option<[u8; 13]> {
    let colour = [0, 4, 2, 6].get(channels.checked_sub(1)?)?;
    let mut header = [0; 13];
    header[..4].copy_from_slice(&u32::try_from(width).ok()?.to_be_bytes());
    header[4..8].copy_from_slice(&u32::try_from(height).ok()?.to_be_bytes());
    header[8..10].copy_from_slice(&[8, *colour]);
    Some(header)
}

/// Whether a chunk is one that no reader takes pixels from or refuses.
fn has_no_effect(kind: [u8; 4], content: &[u8]) -> bool {
    match &kind {
        b"gAMA" => content.len() == 4,
        b"cHRM" => content.len() == 32,
        b"sRGB" => content.len() == 1,
        b"pHYs" => content.len() == 9,
        b"tIME" => content.len() == 7,
        b"tEXt" => content.len() <= MAX_TEXT,
        _ => false,
    }
}

/// Undoes the filters of all rows in place; none if there is another filter than the five.
fn unfilter<const C: usize>(rows: &mut [u8], stride: usize) -> Option<()> {
    let mut above: Option<&[u8]> = None;
    for row in rows.chunks_exact_mut(stride) {
        let (filter, row) = row.split_first_mut()?;
        match (*filter, above) {
            (0, _) | (2, None) => {}
            (1, _) | (4, None) => left(row, [0; C], |left| left),
            (2, Some(above)) => row.iter_mut().zip(above).for_each(|(byte, above)| *byte = byte.wrapping_add(*above)),
            (3, None) => left(row, [0; C], |left| left / 2),
            (3, Some(above)) => average::<C>(row, above),
            (4, Some(above)) => paeth::<C>(row, above),
            _ => return None,
        }
        above = Some(row);
    }
    Some(())
}

/// Adds a function of the byte of the pixel to the left to every byte.
fn left<const C: usize>(row: &mut [u8], mut left: [u8; C], predict: impl Fn(u8) -> u8) {
    for pixel in row.as_chunks_mut::<C>().0 {
        for (byte, left) in pixel.iter_mut().zip(&mut left) {
            *byte = byte.wrapping_add(predict(*left));
            *left = *byte;
        }
    }
}

fn average<const C: usize>(row: &mut [u8], above: &[u8]) {
    let mut left = [0; C];
    for (pixel, above) in row.as_chunks_mut::<C>().0.iter_mut().zip(above.as_chunks::<C>().0) {
        for c in 0..C {
            pixel[c] = pixel[c].wrapping_add(u8::midpoint(left[c], above[c]));
        }
        left = *pixel;
    }
}

fn paeth<const C: usize>(row: &mut [u8], above: &[u8]) {
    let (mut left, mut corner) = ([0; C], [0; C]);
    for (pixel, above) in row.as_chunks_mut::<C>().0.iter_mut().zip(above.as_chunks::<C>().0) {
        for c in 0..C {
            pixel[c] = pixel[c].wrapping_add(predictor(left[c], above[c], corner[c]));
        }
        (left, corner) = (*pixel, *above);
    }
}

/// The one of the three neighbours that is nearest to left + above - corner; the first of those at the same distance.
#[inline]
fn predictor(left: u8, above: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(above), i16::from(corner));
    let (to_left, to_above) = ((b - c).abs(), (a - c).abs());
    let to_corner = (a + b - 2 * c).abs();
    let nearest = if to_above <= to_corner { above } else { corner };
    if to_left <= to_above && to_left <= to_corner { left } else { nearest }
}

/// Writes rows of interleaved channels as one plane per channel.
fn separate<const C: usize>(rows: &[u8], stride: usize, plane: usize, pixels: &mut [u8]) {
    for (channel, plane) in pixels.chunks_exact_mut(plane).enumerate() {
        let sources = rows.chunks_exact(stride).flat_map(|row| row[1..].as_chunks::<C>().0);
        for (pixel, source) in plane.iter_mut().zip(sources) {
            *pixel = source[channel];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(&kind);
        crc.update(content);
        [&(content.len() as u32).to_be_bytes(), &kind[..], content, &crc.sum().to_be_bytes()].concat()
    }

    fn png(shape: [usize; 3], rows: &[u8]) -> Vec<u8> {
        let mut compressor = libdeflater::Compressor::default();
        let mut data = vec![0; compressor.zlib_compress_bound(rows.len())];
        let len = compressor.zlib_compress(rows, &mut data).unwrap();
        let header = header_of(shape).unwrap();
        [SIGNATURE, &chunk(*b"IHDR", &header), &chunk(*b"IDAT", &data[..len]), &chunk(*b"IEND", b"")].concat()
    }

    #[test]
    fn predictors_follow_the_specification() {
        assert_eq!(predictor(10, 20, 12), 20);
        assert_eq!(predictor(10, 20, 18), 10);
        assert_eq!(predictor(30, 20, 25), 25);
        // Where the corner is as near as another one, it comes last.
        assert_eq!(predictor(2, 14, 10), 2);
        assert_eq!(predictor(14, 2, 10), 2);
    }

    #[test]
    #[cfg_attr(miri, ignore = "libdeflate is C")]
    fn rows_without_a_filter_come_apart_by_channel() {
        let file = png([3, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12]);
        let mut pixels = [0; 12];
        assert_eq!(Decoder::new([3, 2, 2]).decode(&file, &mut pixels), Some(()));
        assert_eq!(pixels, [1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12]);
        assert_eq!(Decoder::new([3, 2, 2]).decode(&file, &mut pixels[..11]), None);
        assert_eq!(Decoder::new([5, 2, 2]).decode(&file, &mut pixels), None);
        assert_eq!(Decoder::new([0, 0, 0]).decode(&file, &mut []), None);
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "libdeflate is C")]
        fn damaged_files_do_no_harm(
            changes in prop::collection::vec((0_usize..90, any::<u8>()), 0..4),
            len in 0_usize..100,
            shape in prop::array::uniform3(0_usize..5),
        ) {
            let mut file = png([1, 3, 4], &[0, 1, 2, 3, 4, 1, 5, 6, 7, 8, 4, 9, 10, 11, 12]);
            for (place, value) in changes {
                let place = place % file.len();
                file[place] = value;
            }
            file.truncate(len);
            let mut pixels = vec![0; shape.iter().product()];
            let _ = Decoder::new(shape).decode(&file, &mut pixels);
        }

        #[test]
        #[cfg_attr(miri, ignore = "libdeflate is C")]
        fn chunks_of_any_kind_do_no_harm(
            kinds in prop::collection::vec((prop::sample::select(vec![b"IHDR", b"IDAT", b"IEND", b"tEXt", b"gAMA"]),
                prop::collection::vec(any::<u8>(), 0..20)), 0..6),
        ) {
            let mut file = [SIGNATURE, &chunk(*b"IHDR", &header_of([1, 1, 1]).unwrap())].concat();
            for (kind, content) in &kinds {
                file.extend(chunk(**kind, content));
            }
            let _ = Decoder::new([1, 1, 1]).decode(&file, &mut [0]);
        }
    }
}
