//! `DeviceCandidates`: the images that can carry weight at small sigma, and what is summed over them.

use super::call::Call;
use super::context::Stream;
use super::layout::CandidateLists;
use super::memory::Memory;
use crate::error::Result;
use crate::regime::max_listed_on_gpu;

/// The candidates of a batch.
pub(super) struct DeviceCandidates {
    windows: Memory,
    images: Memory,
    energies: Memory,
    /// Candidates found per query; more than the limit where they do not pay.
    pub(super) counts: Memory,
    /// Bits of the least energy of every window.
    pub(super) least: Memory,
    /// Sums of weights of every window, in fixed point.
    pub(super) weight_sums: Memory,
    /// Weighted sums of pixels, in fixed point.
    pub(super) pixel_sums: Memory,
}

impl DeviceCandidates {
    /// Empty lists for `queries` queries.
    pub(super) fn new(call: &Call<'_>, stream: &Stream, queries: usize) -> Result<Self> {
        let (entries, windows) = (queries * Self::limit(call), queries * call.components.count);
        let least = Memory::new(stream, windows * 8, "least energies")?;
        // No energy has larger bits.
        least.fill(0xff, "least energies")?;
        Ok(Self {
            windows: Memory::new(stream, entries * 4, "lists of candidates")?,
            images: Memory::new(stream, entries * 4, "lists of candidates")?,
            energies: Memory::new(stream, entries * 8, "lists of candidates")?,
            counts: Memory::zeros(stream, queries * 4, "lists of candidates")?,
            least,
            weight_sums: Memory::zeros(stream, windows * 8, "sums of weights")?,
            pixel_sums: Memory::zeros(stream, queries * call.bank.image_len() * 8, "sums of pixels")?,
        })
    }

    /// Most candidates per query.
    pub(super) fn limit(call: &Call<'_>) -> usize {
        max_listed_on_gpu(call.components.mean_pixels, call.components.count, call.bank.len() * call.mirrors())
    }

    /// Bytes of device memory per query.
    pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
        Self::limit(call) * 16 + call.components.count * 16 + call.bank.image_len() * 8
    }

    /// The lists as kernels see them.
    pub(super) fn lists(&self) -> CandidateLists {
        CandidateLists {
            windows: self.windows.address(),
            images: self.images.address(),
            energies: self.energies.address(),
            counts: self.counts.address(),
        }
    }
}
