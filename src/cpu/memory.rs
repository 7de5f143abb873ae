//! How much memory a call takes: how many threads may have working space at once, and whether there is enough of it. An
//! allocation that fails in the middle of a call would end the process, so all of it is asked for once at the start.

use crate::bank::{Bank, Pixels};
use crate::components::{Components, Kind};
use crate::error::{Error, Result};
use crate::reserve::{is_short, refill};
use crate::simd::LANES;

use super::dense::arithmetic::TILES;

/// Most bytes of working space of all threads together; one thread may have what it needs in any case.
const MAX_WORKSPACE: usize = 4 << 30;

/// Bytes of everything that does not grow with the input, and of what allocations lose.
const REST: usize = 8 << 20;

/// The largest bytes of sixteen numbers in one of the two precisions.
const VECTOR: usize = LANES * size_of::<f64>();

/// Bytes of the working space of one thread on a work item of up to `probes` probes: an upper bound for all routes, in
/// float64.
pub(crate) fn workspace(bank: &Bank<'_>, components: &Components, probes: usize) -> usize {
    let [channels, height, width] = bank.image_shape();
    let (plane, count, (_, columns)) = (height * width, components.count(), components.grid());
    let pixel = match bank.pixels() {
        Pixels::U8(_) => VECTOR / 4,
        Pixels::F32(_) => VECTOR / 2,
    };
    let tile = channels * plane * pixel + plane * VECTOR / 2;
    let windows = match components.kind() {
        Kind::Full => return 2 * tile,
        // The rows in use of energies, of weights, and of sums of each.
        Kind::Square { side } => TILES * (4 * (side + 2) * width.max(columns) * VECTOR + count * VECTOR / 2),
        // The doubling tables of energies and weights, and both for every mask.
        Kind::Masks(runs) => runs.levels() * plane * (VECTOR + VECTOR / 2) + TILES * (2 * count + plane) * VECTOR,
    };
    let states = probes * count * (VECTOR / 2);
    let results = probes * bank.image_len() * (size_of::<f32>() + size_of::<f64>());
    TILES * tile + windows + states + results
}

/// How many of `threads` threads may work at once, given the working space of one.
pub(crate) fn threads_at_once(workspace: usize, threads: usize) -> usize {
    (MAX_WORKSPACE / workspace.max(1)).clamp(1, threads)
}

/// An error unless so many bytes can be had, and the reserve besides.
pub(crate) fn check_available(bytes: usize) -> Result<()> {
    let bytes = bytes.saturating_add(REST);
    let refused = |reason: String| Error::Memory { needed: bytes >> 20, reason };
    if !refill() {
        return Err(refused("memory allocation failed".to_owned()));
    }
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|error| refused(error.to_string()))
}

/// An error if memory has run out since.
pub(crate) fn check_not_short(bytes: usize) -> Result<()> {
    if is_short() {
        return Err(Error::Memory { needed: bytes >> 20, reason: "memory allocation failed".to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, Array4};

    #[test]
    fn large_images_have_fewer_threads_and_all_have_one() {
        let small = Array4::<u8>::zeros((1, 3, 32, 32));
        let bank = Bank::from_u8(small.view()).unwrap();
        let of_square = workspace(&bank, &Components::square(32, 32, 7).unwrap(), 8);
        assert!((1 << 17..1 << 22).contains(&of_square), "{of_square}");
        assert_eq!(threads_at_once(of_square, 64), 64);
        let large = Array4::<u8>::zeros((1, 1, 1024, 1024));
        let bank = Bank::from_u8(large.view()).unwrap();
        let masks = Components::masks(Array3::from_elem((1, 1024, 1024), true).view()).unwrap();
        let of_masks = workspace(&bank, &masks, 1);
        assert!((1 << 30..4 << 30).contains(&of_masks), "{of_masks}");
        assert!(threads_at_once(of_masks, 64) < 4);
        assert_eq!(threads_at_once(usize::MAX, 64), 1);
    }

    #[test]
    fn what_cannot_be_had_is_an_error_that_says_how_much() {
        assert_eq!(check_available(1 << 20), Ok(()));
        let error = check_available(usize::MAX / 4).unwrap_err().to_string();
        assert!(error.contains("MiB") && error.contains("set_num_threads"), "{error}");
    }
}
