//! Moments of pixels under the posterior of every window: what variances are computed from.
//!
//! Second moments are wanted summed over the windows at a pixel only, which a composite of squares gives. First moments are
//! wanted window by window, since they are squared: they take a multiplication for every pixel of every window, where the
//! composite needs one for every pixel. Both are of differences from the composite, which lose no digits.

use std::ops::Range;

use super::accumulate::Flush;
use super::arithmetic::{Arithmetic, TILES};
use super::composite::CompositeStage;
use super::group::Group;
use super::weights::GroupWeights;
use super::{COMPOSITE_IMAGES, normalisers};
use crate::components::Components;
use crate::cpu::job::Job;
use crate::cpu::scheduler::{Scheduler, WorkItem, blocks};
use crate::cpu::tile::{Pixel, Tile};
use crate::error::Result;
use crate::posterior::Posterior;
use crate::simd::{F32x16, Kernel, LANES, Vector};

/// First moments of a probe that are held at once.
pub(crate) const MAX_FIRST: usize = 1 << 16;

/// The moments of a probe on some windows.
#[derive(Debug)]
pub(crate) struct Moments {
    /// First moments of the windows `[window][pixel of the window][channel]`.
    pub(crate) first: Vec<f64>,
    /// Second moments of their middle pixels `[window][channel]`.
    pub(crate) middle: Vec<f64>,
    /// Second moments, summed over all windows at a pixel, `[channel][pixel]`.
    pub(crate) second: Vec<f64>,
}

impl Moments {
    fn new(places: &Places, len: usize) -> Self {
        let middle = places.windows.len() * places.channels;
        Self { first: vec![0.0; places.len()], middle: vec![0.0; middle], second: vec![0.0; len] }
    }

    fn add(&mut self, other: &Self) {
        let [first, middle, second] =
            [(&mut self.first, &other.first), (&mut self.middle, &other.middle), (&mut self.second, &other.second)];
        for (sums, others) in [first, middle, second] {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
    }
}

/// Where the first moments of some windows lie.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) windows: Range<usize>,
    channels: usize,
    /// Whether these are the first windows of all, with which the second moments of all windows are summed.
    is_first: bool,
    /// Of window `windows.start + i` they start at `starts[i]`, and end where the next ones start.
    starts: Vec<usize>,
}

impl Places {
    /// The windows of a composite in parts of at most so many first moments, or of one window.
    pub(crate) fn all(components: &Components, channels: usize) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for k in 0..components.count() {
            let len = components.pixels(k) * channels;
            match all.last_mut() {
                Some(last) if last.len() + len <= MAX_FIRST => {
                    last.windows.end = k + 1;
                    last.starts.push(last.len() + len);
                }
                _ => all.push(Self { windows: k..k + 1, channels, is_first: k == 0, starts: vec![0, len] }),
            }
        }
        all
    }

    /// The same windows as flipped probes see them.
    pub(crate) fn mirrored(&self, components: &Components) -> Self {
        let mirrored = components.mirrored();
        // Squares on part of a row have their mirror images elsewhere in it; the rest of the row comes along.
        let windows = self.windows.clone().map(|k| components.mirror_index(k));
        let windows = windows.clone().min().unwrap_or(0)..windows.max().map_or(0, |last| last + 1);
        let lens = windows.clone().map(|k| mirrored.pixels(k) * self.channels);
        let ends = lens.scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        Self {
            starts: [0].into_iter().chain(ends).collect(),
            windows,
            channels: self.channels,
            is_first: self.is_first,
        }
    }

    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The first moments of window `k`, `[pixel of the window][channel]`.
    pub(crate) fn of<'a, T>(&self, moments: &'a [T], k: usize) -> &'a [T] {
        let i = k - self.windows.start;
        &moments[self.starts[i]..self.starts[i + 1]]
    }

    fn of_mut<'a, T>(&self, moments: &'a mut [T], k: usize) -> &'a mut [T] {
        let i = k - self.windows.start;
        &mut moments[self.starts[i]..self.starts[i + 1]]
    }
}

/// Per probe the moments of the differences from `means` `[channel][pixel]`, on the windows of `places`, which are given for
/// probes that are not flipped and for those that are.
pub(crate) fn moments<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    posteriors: &[&Posterior],
    means: &[Vec<f32>],
    places: [&Places; 2],
) -> Result<Vec<Moments>> {
    let normalisers = normalisers::<P, A>(job, posteriors);
    let len = job.bank.image_len();
    let of_probe = |flipped: bool| places[usize::from(flipped)];
    let mut found: Vec<_> = job.probes.iter().map(|probe| Moments::new(of_probe(probe.flipped), len)).collect();
    scheduler.run(
        job,
        &mut found,
        || (Group::new(job), MomentSpace::default()),
        |item, (group, space)| moments_of::<P, A>(job, item, (&normalisers, means, places), group, space),
        |found, of_shard| found.add(&of_shard),
    )?;
    Ok(found)
}

/// Working space of one thread.
#[derive(Default)]
struct MomentSpace {
    weights: GroupWeights,
    stage: CompositeStage,
    /// Differences from the means, and their squares, of every tile.
    differences: Vec<Tile<f32>>,
    squares: Vec<Tile<f32>>,
}

/// The moments of each probe of a work item.
fn moments_of<P: Pixel, A: Arithmetic>(
    job: &Job<'_, P>,
    item: &WorkItem,
    (normalisers, means, places): (&[A::Normaliser], &[Vec<f32>], [&Places; 2]),
    group: &mut Group<P, A>,
    space: &mut MomentSpace,
) -> Vec<Moments> {
    let len = job.bank.image_len();
    let start = |probe: usize| {
        let places = places[usize::from(job.probes[probe].flipped)];
        let moments = Moments::new(places, len);
        let sums = [vec![0.0_f32; moments.first.len()], vec![0.0; moments.middle.len()], vec![0.0; len]];
        (moments, sums)
    };
    let mut states: Vec<_> = item.probes.clone().map(start).collect();
    for images in blocks(item.images.clone(), COMPOSITE_IMAGES) {
        for first in images.step_by(Group::<P, A>::IMAGES) {
            group.load(job, first, &item.images);
            for (probe, (_, sums)) in item.probes.clone().zip(&mut states) {
                if job.is_stopped() || !space.weights.fill(job, group, probe, &normalisers[probe]) {
                    continue;
                }
                space.take_differences(job, group.tiles(), &means[probe]);
                let is_flipped = job.probes[probe].flipped;
                space.add(job, is_flipped, places[usize::from(is_flipped)], sums);
            }
        }
        for (moments, [first, middle, second]) in &mut states {
            job.isa.run(Flush { sums: first, totals: &mut moments.first });
            job.isa.run(Flush { sums: middle, totals: &mut moments.middle });
            job.isa.run(Flush { sums: second, totals: &mut moments.second });
        }
    }
    states.into_iter().map(|(moments, _)| moments).collect()
}

impl MomentSpace {
    /// Computes the differences of the images of tiles from means, and their squares.
    fn take_differences<P: Pixel>(&mut self, job: &Job<'_, P>, tiles: &[Tile<P>], means: &[f32]) {
        let (channels, plane) = (job.bank.image_shape()[0], job.plane());
        for space in [&mut self.differences, &mut self.squares] {
            space.resize_with(tiles.len(), || Tile::new(channels, plane));
        }
        for ((tile, differences), squares) in tiles.iter().zip(&mut self.differences).zip(&mut self.squares) {
            let (out, squares) = (&mut differences.pixels[..], &mut squares.pixels[..]);
            job.isa.run(Differences { tile, means, out, squares });
        }
    }

    /// Adds the group to the first moments, those of the middle pixels, and the sums of second moments.
    fn add<P: Pixel>(
        &mut self,
        job: &Job<'_, P>,
        is_flipped: bool,
        places: &Places,
        [first, middle, second]: &mut [Vec<f32>; 3],
    ) {
        let Self { weights, stage, differences, squares } = self;
        let components = &job.mirrors[usize::from(is_flipped)];
        let (channels, plane, (_, columns)) = (job.bank.image_shape()[0], job.plane(), components.grid());
        for k in places.windows.clone() {
            let (row, column) = (k / columns, k % columns);
            let moments = places.of_mut(first, k);
            let middle = &mut middle[(k - places.windows.start) * channels..][..channels];
            let at = middle_of(job, k, is_flipped);
            let mut terms: [Option<(&F32x16, &[F32x16])>; TILES] = [None; TILES];
            for (tile, (differences, squares)) in differences.iter().zip(&*squares).enumerate() {
                let Some(weight) = weights.row(tile, row).map(|weights| &weights[column]) else { continue };
                terms[tile] = Some((weight, &differences.pixels));
                for (c, sum) in middle.iter_mut().enumerate() {
                    let square = &squares.pixels[c * plane + at];
                    *sum += (0..LANES).map(|lane| weight.0[lane] * square.0[lane]).sum::<f32>();
                }
            }
            job.isa.run(AddWindow { terms, channels, plane, runs: || components.runs(k), moments });
        }
        if !places.is_first {
            return;
        }
        stage.start(components);
        for start in (0..components.count()).step_by(job.windows_at_once()) {
            stage.add(job.isa, components, squares, second, |tile, active, out| {
                weights.copy(tile, start / columns, active, out)
            });
        }
        stage.finish(job.isa, components, squares, second);
    }
}

/// The middle pixel of a window as a probe sees it: for flipped ones the mirror image of that of the query's window.
fn middle_of<P: Pixel>(job: &Job<'_, P>, k: usize, is_flipped: bool) -> usize {
    let (components, width) = (&job.mirrors[0], job.mirrors[0].width());
    if !is_flipped {
        return components.middle(k);
    }
    let at = components.middle(components.mirror_index(k));
    at - at % width + (width - 1 - at % width)
}

/// Writes the differences of a tile's images from means, and their squares.
struct Differences<'a, P: Pixel> {
    tile: &'a Tile<P>,
    means: &'a [f32],
    out: &'a mut [F32x16],
    squares: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for Differences<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile, means, out, squares } = self;
        for (((pixel, mean), difference), square) in tile.pixels.iter().zip(means).zip(out).zip(squares) {
            let value = P::centred::<V>(pixel).sub(V::splat(*mean));
            value.store(difference);
            value.mul(value).store(square);
        }
    }
}

/// Adds the pixels of a window, times the weights of their images, to `moments` `[pixel of the window][channel]`. The terms
/// are the weights of a tile and its pixels.
struct AddWindow<'a, R> {
    terms: [Option<(&'a F32x16, &'a [F32x16])>; TILES],
    channels: usize,
    plane: usize,
    runs: R,
    moments: &'a mut [f32],
}

impl<R: Fn() -> I, I: Iterator<Item = Range<usize>>> Kernel for AddWindow<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { terms, channels, plane, runs, moments } = self;
        match terms {
            [Some(a), Some(b)] => add_window::<V, 2>([a, b], channels, plane, runs(), moments),
            [Some(a), None] | [None, Some(a)] => add_window::<V, 1>([a], channels, plane, runs(), moments),
            [None, None] => {}
        }
    }
}

#[inline(always)]
fn add_window<V: Vector, const T: usize>(
    terms: [(&F32x16, &[F32x16]); T],
    channels: usize,
    plane: usize,
    runs: impl Iterator<Item = Range<usize>>,
    moments: &mut [f32],
) {
    let weights: [V; T] = terms.map(|(weight, _)| V::load(weight));
    let mut done = 0;
    for run in runs {
        for c in 0..channels {
            let range = c * plane + run.start..c * plane + run.end;
            let pixels: [&[F32x16]; T] = std::array::from_fn(|t| &terms[t].1[range.clone()]);
            let moments = &mut moments[done..][..run.len()];
            let product = |p: usize| {
                let mut sum = V::load(&pixels[0][p]).mul(weights[0]);
                for t in 1..T {
                    sum = V::load(&pixels[t][p]).mul_add(weights[t], sum);
                }
                sum
            };
            // Four sums across lanes share most of their shuffles.
            let (fours, rest) = moments.as_chunks_mut::<4>();
            let after_fours = 4 * fours.len();
            for (i, sums) in fours.iter_mut().enumerate() {
                let totals = V::sums([product(4 * i), product(4 * i + 1), product(4 * i + 2), product(4 * i + 3)]);
                for j in 0..4 {
                    sums[j] += totals[j];
                }
            }
            for (i, sum) in rest.iter_mut().enumerate() {
                *sum += product(after_fours + i).sum();
            }
            done += run.len();
        }
    }
}
