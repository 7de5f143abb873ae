//! The softmax of every component and the means under it, in one pass: what is added to a sum of weights is added to sums of
//! weighted pixels, too.

use super::pass::{Block, Pass};
use crate::cpu::dense::online_softmax::{MIN_EXPONENT, NO_SHIFT, RESCALE_BITS, any_near, best_of, part_of, shift_of};
use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::posterior::{Posterior, ShiftUnit, power_of_two};
use crate::simd::{F32x8, F32x16, Isa, Kernel, Vector};

/// Groups of images, under a view each, whose weights are summed in float32 before they are added to others in float64: every
/// addition rounds, and where all images have the same weight, always in the same direction.
const GROUPS: usize = 16;

/// Per component a shift, the sum of weights relative to it, and sums of centred pixels with these weights.
#[derive(Debug, Default)]
pub(super) struct Means {
    shift: Vec<f32>,
    /// `[component][1 + answers]`.
    sums: Vec<F32x8>,
    /// The same of earlier groups.
    settled: Vec<f64>,
    /// Sums per component.
    numbers: usize,
    negligible: f32,
    /// Groups since the sums were settled.
    pending: usize,
}

/// What a shard adds to the means of a query.
pub(super) struct ShardMeans {
    shift: Vec<f64>,
    sum: Vec<f64>,
    /// `[component][answer]`.
    answers: Vec<f64>,
}

/// The means of a query: its posterior, and sums of centred pixels with the same weights.
#[derive(Debug, Clone)]
pub(crate) struct TotalMeans {
    pub(super) posterior: Posterior,
    /// `[component][answer]`.
    answers: Vec<f64>,
}

impl Means {
    /// A pass over so many components, of so many answers each.
    pub(super) fn pass(count: usize, answers: usize) -> MeansPass {
        MeansPass { count, answers }
    }

    /// Starts over with `count` components of so many answers each, and no image; images `negligible` powers of two below the
    /// best so far are passed over.
    fn start(&mut self, count: usize, answers: usize, negligible: f32) {
        (self.numbers, self.negligible, self.pending) = (1 + answers, negligible, 0);
        self.shift.clear();
        self.shift.resize(count, NO_SHIFT);
        self.sums.clear();
        self.sums.resize(count * self.numbers, F32x8::ZERO);
        self.settled.clear();
        self.settled.resize(count * self.numbers, 0.0);
    }

    /// Counts a group of images that was added; every so often the sums of float32 are added to those of float64.
    fn count_group(&mut self, isa: Isa) {
        self.pending += 1;
        if self.pending == GROUPS {
            self.settle(isa);
        }
    }

    fn settle(&mut self, isa: Isa) {
        self.pending = 0;
        isa.run(Settle { means: self });
    }

    /// Moves the shift of component `k` to a new least energy.
    #[cold]
    #[inline(never)]
    fn rescale(&mut self, k: usize, least: f32, logit_scale: f32) {
        // It never rises, even where energies are NaN.
        let shift = shift_of(least, logit_scale).min(self.shift[k]);
        let share = power_of_two(f64::from(shift) - f64::from(self.shift[k]));
        let of_component = k * self.numbers..(k + 1) * self.numbers;
        let sums = self.sums[of_component.clone()].iter_mut().flat_map(|sum| &mut sum.0);
        sums.for_each(|sum| *sum *= share as f32);
        self.settled[of_component].iter_mut().for_each(|sum| *sum *= share);
        self.shift[k] = shift;
    }
}

impl TotalMeans {
    /// Of no image.
    pub(super) fn empty(count: usize, answers: usize) -> Self {
        Self { posterior: Posterior::empty(count, ShiftUnit::PowersOfTwo), answers: vec![0.0; count * answers] }
    }

    /// Answers of a component.
    fn per_component(&self) -> usize {
        self.answers.len() / self.posterior.sums().len()
    }

    /// Adds a shard; the order of shards fixes the bits.
    fn merge(&mut self, shard: &ShardMeans) {
        let count = self.per_component();
        let Self { posterior, answers } = self;
        posterior.merge_with(&shard.shift, &shard.sum, |k, shares| {
            let of_component = k * count..(k + 1) * count;
            for (sum, added) in answers[of_component.clone()].iter_mut().zip(&shard.answers[of_component]) {
                *sum = *sum * shares[0] + added * shares[1];
            }
        });
    }

    /// The means, `[answer][component]`, times shares of the components, given as base-2 logarithms.
    pub(super) fn means(&self, log2_shares: Option<&[f64]>) -> impl Iterator<Item = f64> {
        let (count, sums) = (self.per_component(), self.posterior.sums());
        (0..count).flat_map(move |answer| {
            let answers = self.answers[answer..].iter().step_by(count);
            answers
                .zip(sums)
                .enumerate()
                .map(move |(k, (answer, sum))| answer / sum * log2_shares.map_or(1.0, |shares| shares[k].exp2()))
        })
    }
}

/// Adds sums of float32 to those of float64, and starts them over.
struct Settle<'a> {
    means: &'a mut Means,
}

impl Kernel for Settle<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for (settled, sum) in self.means.settled.iter_mut().zip(&mut self.means.sums) {
            *settled += f64::from(sum.sum());
            *sum = F32x8::ZERO;
        }
    }
}

/// The only pass of components with one answer each, or the first of others: so many components, of so many answers each.
pub(super) struct MeansPass {
    count: usize,
    answers: usize,
}

impl Pass for MeansPass {
    type Space = ();
    type State = Means;
    type Partial = ShardMeans;
    type Total = TotalMeans;

    fn start(&self, means: &mut Means, negligible: f32) {
        means.start(self.count, self.answers, negligible);
    }

    fn add<P: Pixel>(&self, job: &Job<'_, P>, _probe: usize, block: &Block<'_, P>, (): &mut (), means: &mut Means) {
        job.isa.run(Update { block, means });
    }

    fn end_group<P: Pixel>(&self, job: &Job<'_, P>, _tiles: &[Tile<P>], (): &mut (), means: &mut Means) {
        means.count_group(job.isa);
    }

    fn finish<P: Pixel>(&self, job: &Job<'_, P>, means: &mut Means) -> ShardMeans {
        means.settle(job.isa);
        let of_components = || means.settled.chunks_exact(means.numbers);
        ShardMeans {
            shift: means.shift.iter().map(|&shift| f64::from(shift)).collect(),
            sum: of_components().map(|sums| sums[0]).collect(),
            answers: of_components().flat_map(|sums| &sums[1..]).copied().collect(),
        }
    }

    fn merge(&self, total: &mut TotalMeans, shard: ShardMeans) {
        total.merge(&shard);
    }
}

/// Adds a block to the means, unless its images are far from the best so far on all of its components.
struct Update<'a, 'b, P: Pixel> {
    block: &'a Block<'b, P>,
    means: &'a mut Means,
}

impl<P: Pixel> Kernel for Update<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        match (self.block.tiles.len(), self.means.numbers) {
            (2, 2) => self.of_tiles::<V, 2, 2>(),
            (2, 4) => self.of_tiles::<V, 2, 4>(),
            (2, _) => self.of_tiles::<V, 2, 0>(),
            (_, _) => self.of_tiles::<V, 1, 0>(),
        }
    }
}

impl<P: Pixel> Update<'_, '_, P> {
    /// `NUMBERS` is that of sums per component, or 0 where it is only known at run time.
    #[inline(always)]
    fn of_tiles<V: Vector, const T: usize, const NUMBERS: usize>(self) {
        let Self { block, means } = self;
        let Block { tiles, first, place, apart, logit_scale, .. } = *block;
        let count = block.part.len();
        let energies: [&[F32x16]; T] = std::array::from_fn(|t| block.of_tile(t));
        if !any_near::<V, T>(energies, &means.shift[first..][..count], means.negligible, logit_scale) {
            return;
        }
        let pixels: [&[P::Packed]; T] = std::array::from_fn(|t| &tiles[t].pixels[place..]);
        let (mut k, mut has_moved) = (0, false);
        while k < count {
            let rest =
                Row::<P, T> { energies: part_of(energies, k, count - k), pixels: pixels.map(|all| &all[k..]), apart };
            let added = rest.add::<V, NUMBERS>(logit_scale, means, first + k);
            k += added;
            if added == 0 && has_moved {
                // Only energies that are NaN stay above a shift that has moved.
                k += 1;
            } else if k < count {
                means.rescale(first + k, best_of::<V, T>(energies, k).least(), logit_scale);
                has_moved = true;
            }
        }
    }
}

/// Components side by side: energies, and the pixels that they answer for, those of several answers `apart`.
struct Row<'a, P: Pixel, const T: usize> {
    energies: [&'a [F32x16]; T],
    pixels: [&'a [P::Packed]; T],
    apart: usize,
}

impl<P: Pixel, const T: usize> Row<'_, P, T> {
    /// Adds the images to the components, the first of which is component `first`. Stops before one whose shift has to move: a
    /// call inside the loop would evict its constants from their registers. Returns how many components it added.
    #[inline(always)]
    fn add<V: Vector, const NUMBERS: usize>(&self, logit_scale: f32, means: &mut Means, first: usize) -> usize {
        let count = self.energies[0].len();
        let energies = part_of(self.energies, 0, count);
        let numbers = if NUMBERS > 0 { NUMBERS } else { means.numbers };
        let shift = &means.shift[first..][..count];
        let sums = &mut means.sums[first * numbers..][..count * numbers];
        let answers: [[&[P::Packed]; NUMBERS]; T] = std::array::from_fn(|t| {
            std::array::from_fn(|i| if i == 0 { &[][..] } else { &self.pixels[t][(i - 1) * self.apart..][..count] })
        });
        let factor = V::splat(-logit_scale);
        for k in 0..count {
            let shift = V::splat(shift[k]);
            let excess = best_of::<V, T>(energies, k).mul_add(factor, shift);
            if V::splat(RESCALE_BITS).any_below(excess) {
                return k;
            }
            let (mut weights, mut total) = ([V::splat(0.0); T], V::splat(0.0));
            for t in 0..T {
                let logit = V::load(&energies[t][k]).mul_add(factor, shift);
                weights[t] = logit.max(V::splat(MIN_EXPONENT)).exp2();
                total = if t == 0 { weights[t] } else { total.add(weights[t]) };
            }
            if NUMBERS > 0 {
                let sums = &mut sums.as_chunks_mut::<NUMBERS>().0[k];
                total.add_to(&mut sums[0]);
                for i in 1..NUMBERS {
                    weighted::<V, P, T>(weights, |t| &answers[t][i][k]).add_to(&mut sums[i]);
                }
            } else {
                let sums = &mut sums[k * numbers..][..numbers];
                total.add_to(&mut sums[0]);
                for i in 1..numbers {
                    let place = (i - 1) * self.apart + k;
                    weighted::<V, P, T>(weights, |t| &self.pixels[t][place]).add_to(&mut sums[i]);
                }
            }
        }
        count
    }
}

/// The sum over tiles of weights times pixels.
#[inline(always)]
fn weighted<'a, V: Vector, P: Pixel, const T: usize>(weights: [V; T], pixel: impl Fn(usize) -> &'a P::Packed) -> V {
    let mut sum = P::centred::<V>(pixel(0)).mul(weights[0]);
    for t in 1..T {
        sum = P::centred::<V>(pixel(t)).mul_add(weights[t], sum);
    }
    sum
}
