//! What is added to energies for priors, and which images are left out for which query, as the kernels read them.
//!
//! The CPU's twin is `cpu/penalties.rs`. The kernels give an image that does not count the largest float as energy, as they do
//! with places in a group that have no image: they form weights relative to the least energy instead of an integer shift.

use super::context::Stream;
use super::layout::Address;
use super::memory::Memory;
use super::upload::GROUP_LEN;
use crate::atoms::Atoms;
use crate::error::Result;
use crate::sources::Sources;

/// Images per word of [`LeftOut`].
const WORD_BITS: usize = 32;

/// By how many powers of two the prior of every image lies below the largest.
pub(super) struct Priors {
    below: Memory,
    /// The most powers of two.
    pub(super) bits: f64,
}

impl Priors {
    /// Those of the images that count, if they have any.
    pub(super) fn new(sources: &Sources<'_>, stream: &Stream) -> Result<Option<Self>> {
        if !sources.has_prior() {
            return Ok(None);
        }
        let bits = |nats: f64| nats * std::f64::consts::LOG2_E;
        let below = (0..sources.len).map(|position| bits(sources.below(position)));
        // Kernels read whole groups.
        let rest = sources.len.next_multiple_of(GROUP_LEN) - sources.len;
        let below: Vec<f64> = below.chain(std::iter::repeat_n(0.0, rest)).collect();
        let below = Memory::copy_of(stream, &below, "the priors")?;
        Ok(Some(Self { below, bits: bits(sources.prior_span) }))
    }

    /// Where they are on the device.
    pub(super) fn address(&self) -> Address {
        self.below.address()
    }
}

/// The images that do not count for the queries of a batch, a bit per image, `[query][word]`.
pub(super) struct LeftOut {
    bits: Memory,
    /// Words per query.
    pub(super) words: usize,
}

impl LeftOut {
    /// Those of the queries in `rows` of a call, if any of them leaves out one of the `images` that count.
    pub(super) fn new(atoms: &Atoms, images: usize, stream: &Stream, rows: &[usize]) -> Result<Option<Self>> {
        let words = Self::words(images);
        if rows.iter().all(|&row| atoms.left_out_of(row).is_empty()) {
            return Ok(None);
        }
        let mut bits = vec![0_u32; rows.len() * words];
        for (of_query, &row) in bits.chunks_exact_mut(words).zip(rows) {
            let positions = atoms.left_out_of(row).iter().map(|&position| position as usize);
            for position in positions.filter(|&position| position < images) {
                of_query[position / WORD_BITS] |= 1 << (position % WORD_BITS);
            }
        }
        Ok(Some(Self { bits: Memory::copy_of(stream, &bits, "the images left out")?, words }))
    }

    /// Bytes of device memory per query, where so many images count.
    pub(super) fn bytes_per_query(images: usize) -> usize {
        4 * Self::words(images)
    }

    /// Where they are on the device.
    pub(super) fn address(&self) -> Address {
        self.bits.address()
    }

    fn words(images: usize) -> usize {
        images.div_ceil(WORD_BITS)
    }
}
