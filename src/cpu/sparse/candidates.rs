//! Candidates: the images that can carry weight on a window. A scan collects those whose energy is near the least one.

use crate::cpu::chunks::exact_chunks;
use crate::cpu::precision::Rounding;
use crate::simd::{F32x16, Kernel, LANES, U16x32, Vector, VectorU16};

/// An image that may carry weight on a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Index of the window, as the probe sees it.
    pub(crate) window: u32,
    /// Index of the image in the bank.
    pub(crate) image: u32,
    /// Its energy, within the rounding of the scan.
    pub(crate) energy: f32,
}

/// How far the energies of a scan may be off: as floats or, with a scale, in fixed point of sixteen bits. An energy E is
/// computed within `offset + root sqrt(E) + slack E`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ErrorBound {
    /// The energy of one fixed-point unit; zero for floats.
    pub(crate) scale: f32,
    /// In the units of energies.
    pub(crate) offset: f32,
    /// In the units of their roots.
    pub(crate) root: f32,
    /// Relative to them: the rounding of their sums, and of the bounds themselves.
    pub(crate) slack: f32,
    /// Energies below this are within those bounds; larger sums may have saturated.
    pub(crate) saturated_from: f32,
}

impl ErrorBound {
    /// The slack for the rounding of bounds.
    pub(crate) const SLACK: f32 = 1e-6;

    /// The bound of energies as floats.
    pub(crate) fn of_floats(rounding: &Rounding) -> Self {
        let (offset, root, slack) = rounding.bound();
        let slack = slack as f32 + Self::SLACK;
        Self { scale: 0.0, offset: offset as f32, root: root as f32, slack, saturated_from: f32::INFINITY }
    }

    /// Energies within `margin` of the exact least one are computed below this bound, where the least one computed is
    /// `least`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn bound(&self, least: f32, margin: f32) -> f32 {
        // No energy is as large; where no image has been seen, an infinite bound times a root of zero would be NaN.
        const LARGEST: f32 = 1e37;
        let Self { offset, root, slack, .. } = self;
        // As `Rounding::near`, in float32.
        let least = least.min(LARGEST);
        let least = ((least * (1.0 + 2.0 * slack) + offset + 0.25 * root * root).sqrt() + 0.5 * root).powi(2);
        let most = least + margin;
        most + offset + root * most.sqrt() + slack * most
    }

    /// The same bound in fixed-point units.
    #[inline(always)]
    fn limit(&self, bound: f32) -> u16 {
        ((bound / self.scale) as u16).saturating_add(1)
    }
}

/// The least energy seen per window, and the images near it.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// Per window the least energy so far.
    pub(crate) least: Vec<f32>,
    /// Per window the bound below which energies are collected; in `limits` in fixed-point units, if the scan uses those.
    bounds: Vec<f32>,
    limits: Vec<u16>,
    /// How far above the least an energy may lie.
    margin: f32,
    /// How far energies may be off.
    pub(crate) error_bound: ErrorBound,
    /// Images within the margin of the least energy when they were seen, in order per window.
    pub(crate) list: Vec<Candidate>,
    /// No more than this many are collected.
    limit: usize,
    /// Whether there were too many candidates, so that the list was dropped.
    pub(crate) given_up: bool,
}

/// Candidates by window and image.
#[derive(Debug)]
pub(crate) struct ByWindow {
    list: Vec<(u32, f32)>,
    /// Those of window `k` are `list[starts[k]..starts[k + 1]]`.
    starts: Vec<usize>,
}

impl Candidates {
    /// No candidates; `least` may already bound the least energies from above.
    #[must_use]
    pub(crate) fn new(least: Vec<f32>, margin: f32, error_bound: ErrorBound, limit: usize) -> Self {
        let (bounds, limits, list) = (Vec::new(), Vec::new(), Vec::new());
        let mut new = Self { least, bounds, limits, margin, error_bound, list, limit, given_up: false };
        new.refresh_bounds();
        new
    }

    /// Computes the bounds of all windows from their least energies.
    fn refresh_bounds(&mut self) {
        let Self { error_bound, margin, .. } = *self;
        self.bounds.clear();
        self.bounds.extend(self.least.iter().map(|&least| error_bound.bound(least, margin)));
        self.limits.clear();
        if error_bound.scale > 0.0 {
            self.limits.extend(self.bounds.iter().map(|&bound| error_bound.limit(bound)));
        }
    }

    /// A copy of the least energies and bounds, with an empty list.
    #[must_use]
    pub(crate) fn without_list(&self) -> Self {
        let mut copy = Self::new(Vec::new(), self.margin, self.error_bound, self.limit);
        copy.start_from(self, self.limit);
        copy
    }

    /// Starts a new list of up to `limit`, with the least energies of `other`.
    pub(crate) fn start_from(&mut self, other: &Self, limit: usize) {
        self.least.clone_from(&other.least);
        self.bounds.clone_from(&other.bounds);
        self.limits.clone_from(&other.limits);
        (self.margin, self.error_bound, self.limit) = (other.margin, other.error_bound, limit);
        self.list.clear();
        self.given_up = false;
    }

    /// Whether every energy that counts was computed without saturation.
    #[must_use]
    pub(crate) fn did_not_saturate(&self) -> bool {
        self.bounds.iter().all(|&bound| bound < self.error_bound.saturated_from)
    }

    /// Whether some candidates were not collected, so that the list cannot be used.
    #[must_use]
    pub(crate) fn overflowed(&self) -> bool {
        self.list.len() > self.limit
    }

    /// Merges the candidates of the next part of the data. A list that overflowed is dropped for good, and its memory
    /// freed.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (least, &other_least) in self.least.iter_mut().zip(&other.least) {
            *least = least.min(other_least);
        }
        self.given_up |= other.overflowed();
        if !self.given_up && self.list.len() + other.list.len() > self.limit {
            // Lists are longest before the least energies are known: what these rule out makes room.
            self.prune();
            self.given_up = self.list.len() + other.list.len() > self.limit;
        }
        if self.given_up {
            self.list = Vec::new();
        } else {
            self.list.extend_from_slice(&other.list);
        }
    }

    /// Drops the candidates that the current least energies rule out.
    pub(crate) fn prune(&mut self) {
        self.refresh_bounds();
        let bounds = &self.bounds;
        self.list.retain(|candidate| candidate.energy < bounds[candidate.window as usize]);
    }

    /// The images of every window: a counting sort, which keeps their order.
    #[must_use]
    pub(crate) fn by_window(&self) -> ByWindow {
        // The start of window k is kept at k + 1 until the window is filled, and has then moved on to the start of
        // window k + 1.
        let mut starts = vec![0; self.least.len() + 2];
        for candidate in &self.list {
            starts[candidate.window as usize + 2] += 1;
        }
        for k in 2..starts.len() {
            starts[k] += starts[k - 1];
        }
        let mut list = vec![(0, 0.0); self.list.len()];
        for candidate in &self.list {
            let next = &mut starts[candidate.window as usize + 1];
            list[*next] = (candidate.image, candidate.energy);
            *next += 1;
        }
        ByWindow { list, starts }
    }
}

impl ByWindow {
    /// Images and energies of window `k`.
    #[must_use]
    pub(crate) fn of(&self, k: usize) -> &[(u32, f32)] {
        &self.list[self.starts[k]..self.starts[k + 1]]
    }
}

/// Collects candidates from the energies `[tile][window]` of a group of tiles on consecutive windows.
pub(crate) struct Collect<'a> {
    pub(crate) energies: &'a [F32x16],
    /// Number of windows.
    pub(crate) count: usize,
    pub(crate) first_window: usize,
    pub(crate) first_image: usize,
    pub(crate) candidates: &'a mut Candidates,
}

impl Kernel for Collect<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { energies, count, first_window, first_image, candidates } = self;
        let (mut tiles, mut first) = (exact_chunks(energies, count), first_image);
        while let Some(tile) = tiles.next() {
            match tiles.next() {
                Some(next) => collect_tiles::<V, 2>([tile, next], first_window, first, candidates),
                None => collect_tiles::<V, 1>([tile], first_window, first, candidates),
            }
            first += 2 * LANES;
        }
    }
}

#[inline(always)]
fn collect_tiles<V: Vector, const T: usize>(
    energies: [&[F32x16]; T],
    start: usize,
    first: usize,
    candidates: &mut Candidates,
) {
    let Candidates { least, bounds, margin, error_bound, list, limit, .. } = candidates;
    let count = energies[0].len();
    let (bounds, least) = (&mut bounds[start..][..count], &mut least[start..][..count]);
    for k in 0..count {
        let mut near = V::load(&energies[0][k]);
        for t in 1..T {
            near = near.min(V::load(&energies[t][k]));
        }
        if !near.any_below(V::splat(bounds[k])) {
            continue;
        }
        if near.any_below(V::splat(least[k])) {
            least[k] = near.least();
            bounds[k] = error_bound.bound(least[k], *margin);
        }
        for t in 0..T {
            let mut below = V::load(&energies[t][k]).below(V::splat(bounds[k]));
            while below != 0 && list.len() <= *limit {
                let lane = below.trailing_zeros() as usize;
                below &= below - 1;
                let image = (first + t * LANES + lane) as u32;
                list.push(Candidate { window: (start + k) as u32, image, energy: energies[t][k].0[lane] });
            }
        }
    }
}

/// Windows that are tested before the candidates of any of them are collected.
const WINDOWS_PER_TEST: usize = 64;

/// The same for energies in fixed point on a row of windows.
pub(crate) struct CollectFixedPoint<'a> {
    /// `[window]`.
    pub(crate) energies: &'a [U16x32],
    pub(crate) first_window: usize,
    pub(crate) first_image: usize,
    pub(crate) candidates: &'a mut Candidates,
}

impl Kernel for CollectFixedPoint<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { energies, first_window, first_image, candidates } = self;
        let mut near = [0; WINDOWS_PER_TEST];
        for (i, windows) in energies.chunks(WINDOWS_PER_TEST).enumerate() {
            let start = first_window + i * WINDOWS_PER_TEST;
            let limits = &candidates.limits[start..][..windows.len()];
            // Few windows have a candidate, and which ones is unpredictable: they are noted without a branch, which
            // would often be mispredicted.
            let mut count = 0;
            for k in 0..windows.len() {
                near[count % WINDOWS_PER_TEST] = k;
                count += usize::from(V::U16::load(&windows[k]).any_below(V::U16::splat(limits[k])));
            }
            for &k in &near[..count] {
                collect_window::<V>(&windows[k], start + k, first_image, candidates);
            }
        }
    }
}

/// Collects the candidates on window `k`.
#[inline(always)]
fn collect_window<V: Vector>(energies: &U16x32, k: usize, first: usize, candidates: &mut Candidates) {
    let Candidates { least, bounds, limits, margin, error_bound, list, limit, .. } = candidates;
    let near = V::U16::load(energies);
    if near.any_below(V::U16::splat((least[k] / error_bound.scale) as u16)) {
        least[k] = error_bound.scale * f32::from(near.least());
        bounds[k] = error_bound.bound(least[k], *margin);
        limits[k] = error_bound.limit(bounds[k]);
    }
    let mut below = near.below(V::U16::splat(limits[k]));
    while below != 0 && list.len() <= *limit {
        let lane = below.trailing_zeros() as usize;
        below &= below - 1;
        let energy = error_bound.scale * f32::from(energies.0[lane]);
        list.push(Candidate { window: k as u32, image: (first + lane) as u32, energy });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;
    use crate::simd::U16_LANES;
    use proptest::prelude::*;

    const FLOATS: ErrorBound =
        ErrorBound { scale: 0.0, offset: 0.0, root: 0.0, slack: 1e-5, saturated_from: f32::INFINITY };

    proptest! {
        #[test]
        fn nothing_near_the_least_is_missed(
            values in proptest::collection::vec(0.0_f32..100.0, 4 * 2 * LANES), margin in 0.1_f32..30.0,
        ) {
            // Two groups of two tiles, two windows: [group][tile][window][lane].
            let lanes: Vec<F32x16> = values.chunks_exact(LANES).map(|v| F32x16(v.try_into().unwrap())).collect();
            for isa in Isa::available() {
                let mut candidates = Candidates::new(vec![f32::MAX; 2], margin, FLOATS, 1000);
                for (group, energies) in lanes.chunks_exact(4).enumerate() {
                    let (first_image, candidates) = (group * 2 * LANES, &mut candidates);
                    isa.run(Collect { energies, count: 2, first_window: 0, first_image, candidates });
                }
                candidates.prune();
                let by_window = candidates.by_window();
                for window in 0..2 {
                    let energy = |image: usize| lanes[image / LANES * 2 + window].0[image % LANES];
                    let least = (0..4 * LANES).map(energy).fold(f32::MAX, f32::min);
                    prop_assert_eq!(candidates.least[window], least);
                    let bound = FLOATS.bound(least, margin);
                    let expected: Vec<usize> = (0..4 * LANES).filter(|&i| energy(i) < bound).collect();
                    let images: Vec<usize> = by_window.of(window).iter().map(|&(image, _)| image as usize).collect();
                    prop_assert_eq!(images, expected);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn fixed_point_of_any_rounding_misses_nothing(
            exact in proptest::collection::vec(0.0_f32..5000.0, 2 * U16_LANES),
            off in proptest::collection::vec(-1.0_f32..1.0, 2 * U16_LANES),
            margin in 0.5_f32..500.0, doublings in 0_i32..3, root in 0.0_f32..0.1,
        ) {
            // Two tiles, one window; energies anywhere within their bound, in units of fixed point.
            let scale = 2.0 * 0.25_f32.powi(doublings);
            let (slack, saturated_from) = (ErrorBound::SLACK, 32_766.0 * scale);
            let error_bound = ErrorBound { scale, offset: 14.0 * scale, root, slack, saturated_from };
            let read = |i: usize| {
                let error = off[i] * (error_bound.offset - scale + root * exact[i].sqrt());
                ((exact[i] + error) / scale).round().clamp(0.0, 65_535.0) as u16
            };
            let least = exact.iter().copied().fold(f32::MAX, f32::min);
            for isa in Isa::available() {
                let mut candidates = Candidates::new(vec![f32::MAX], margin, error_bound, 1000);
                for tile in 0..2 {
                    let energies = U16x32(std::array::from_fn(|lane| read(tile * U16_LANES + lane)));
                    let (energies, first_image) = (&[energies], tile * U16_LANES);
                    isa.run(CollectFixedPoint { energies, first_window: 0, first_image, candidates: &mut candidates });
                }
                candidates.prune();
                let by_window = candidates.by_window();
                let images: Vec<usize> = by_window.of(0).iter().map(|&(image, _)| image as usize).collect();
                prop_assert!(images.is_sorted());
                let missed = (0..2 * U16_LANES).find(|&i| exact[i] <= least + margin && !images.contains(&i));
                prop_assert!(missed.is_none() || !candidates.did_not_saturate(), "{:?} of {:?}", missed, images);
                let (low, high) = (candidates.least[0], (0..2 * U16_LANES).map(read).min().unwrap());
                prop_assert_eq!(low, scale * f32::from(high));
            }
        }
    }

    #[test]
    fn a_list_near_its_limit_makes_room_for_better_images() {
        let candidate = |image: u32, energy: f32| Candidate { window: 0, image, energy };
        let part = |least: f32, list: Vec<Candidate>| {
            let mut part = Candidates::new(vec![least], 1.0, FLOATS, 10);
            part.list = list;
            part
        };
        let mut all = Candidates::new(vec![f32::MAX], 1.0, FLOATS, 10);
        all.merge(&part(50.0, (0..10).map(|i| candidate(i, 50.5)).collect()));
        all.merge(&part(3.0, (10..18).map(|i| candidate(i, 3.5)).collect()));
        assert!(!all.given_up && all.list.iter().all(|candidate| candidate.image >= 10));
        all.merge(&part(3.0, (18..28).map(|i| candidate(i, 3.5)).collect()));
        assert!(all.given_up && all.list.is_empty());
    }

    #[test]
    fn a_full_list_says_so() {
        let mut candidates = Candidates::new(vec![f32::MAX], 1.0, FLOATS, 10);
        let energies = &[F32x16::ZERO; 2];
        Isa::best().unwrap().run(Collect {
            energies,
            count: 1,
            first_window: 0,
            first_image: 0,
            candidates: &mut candidates,
        });
        assert!(candidates.overflowed());
        assert_eq!(candidates.list.len(), 11);
    }
}
