//! `Call`: the queries of a filter's call, and the way of a pass through images, views and queries.

use std::ops::Range;

use ndarray::Array3;

use super::operate::{Scratch, apply};
use crate::bank::{Bank, Pixels};
use crate::components::Components;
use crate::cpu::job::{Job, Signals};
use crate::cpu::memory;
use crate::cpu::scheduler::{MIN_PROBES, Scheduler, WorkItem, items_of_views};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::filter::{Filter, View};
use crate::monitor::Monitor;
use crate::query::Queries;
use crate::regime::{FAR_FROM, dense_cutoff_bits};
use crate::simd::{F64x16, Isa, Kernel, LANES, Vector, VectorF64};
use crate::sources::Sources;

/// Pixels that are transposed at once, so that what is written stays in the first-level cache.
const PIXELS_AT_ONCE: usize = 64;

/// A query, in centred stored units of the bank.
pub(super) struct Query {
    /// `log2(e) / (2 sigma^2)`: energies times this are base-2 logits, sign reversed.
    pub(super) logit_scale: f64,
    /// Per value two numbers p and q by which the residual of an image is `(a - p) (a - q)`: z twice, or, where z is far
    /// from all data, zero and 2 z, which leaves out z^2.
    factors: Vec<[f64; 2]>,
    /// Positions of the images that do not count, in increasing order.
    left_out: Vec<u32>,
}

impl Query {
    /// z where it is near the data, else zero: pixels that carry weight differ little from it at small sigma.
    #[inline(always)]
    pub(super) fn near(&self, value: usize) -> f64 {
        self.factors[value][0]
    }

    /// What energies leave out of the squared distance, per value.
    pub(super) fn left_out_squares(&self) -> impl Iterator<Item = f64> {
        self.factors.iter().map(|&[p, q]| if p.to_bits() == q.to_bits() { 0.0 } else { (q / 2.0).powi(2) })
    }
}

/// What all passes of a call share.
pub(crate) struct Call<'a> {
    pub(super) bank: &'a Bank<'a>,
    pub(super) filter: &'a Filter,
    pub(super) queries: Vec<Query>,
    pub(super) sources: Sources<'a>,
    isa: Isa,
    /// Of jobs, which the filter has no other use for.
    mirrors: [Components; 2],
}

/// What a pass does with a tile of images.
pub(super) trait Pass: Sync {
    /// What it finds for a query on a shard.
    type Partial: Send;
    /// What it finds for a query.
    type Total: Send;

    /// Before any image of a shard, whose positions these are.
    fn start(&self, call: &Call<'_>, query: usize, shard: &Range<usize>) -> Self::Partial;

    /// Takes in a tile under a view.
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, partial: &mut Self::Partial);

    /// Adds a later shard.
    fn merge(&self, total: &mut Self::Total, partial: Self::Partial);
}

/// Sixteen images under a view, before a query.
pub(super) struct Tile<'a> {
    pub(super) call: &'a Call<'a>,
    /// The query of the call.
    pub(super) query: usize,
    /// The position of the first image.
    pub(super) first: usize,
    /// The number of the view.
    pub(super) view: usize,
    /// Centred pixels, `[channel][row][column]`.
    pub(super) pixels: &'a [F64x16],
    pub(super) planes: &'a mut Planes,
    /// What is added to energies for priors.
    bias: F64x16,
    /// The largest number for images that do not count, the least for others.
    counted: F64x16,
}

/// The working space of a thread.
#[derive(Debug, Default)]
pub(super) struct Planes {
    images: Vec<F64x16>,
    viewed: Vec<F64x16>,
    /// Values on their way to components or back.
    pub(super) values: Vec<F64x16>,
    /// Energies, then weights.
    pub(super) components: Vec<F64x16>,
    /// Products with a direction.
    pub(super) products: Vec<F64x16>,
    pub(super) scratch: Scratch,
}

impl<'a> Call<'a> {
    pub(crate) fn new(bank: &'a Bank<'a>, filter: &'a Filter, queries: &'a Queries<'_>) -> Result<Self> {
        let [_, height, width] = filter.shape();
        let whole = Components::full(height, width)?;
        let of = |query: usize| Query::new(bank, queries, query);
        Ok(Self {
            bank,
            filter,
            queries: (0..queries.len()).map(of).collect(),
            sources: Sources::new(bank, queries.atoms()),
            isa: Isa::best()?,
            mirrors: [whole.clone(), whole],
        })
    }

    /// Pairs of images and views that a pass visits for every query.
    pub(super) fn pairs(&self) -> usize {
        self.sources.len * self.filter.views()
    }

    /// Values of an image.
    pub(super) fn len(&self) -> usize {
        self.bank.image_len()
    }

    /// Weights below `2^-cutoff` of a component's sum are left out.
    pub(super) fn cutoff(&self) -> f64 {
        dense_cutoff_bits(self.pairs())
    }

    /// Runs a pass over all images, views and queries, of which it takes `of_query` bytes for each; it is pass `done` of `passes`.
    pub(super) fn run<T: Pass>(
        &self,
        pass: &T,
        totals: &mut [T::Total],
        of_query: usize,
        (done, passes): (u64, u64),
        monitor: &mut Monitor<'_>,
    ) -> Result<()> {
        let monitor = &mut |now: u64, total: u64| monitor(now + done * total, passes * total);
        match self.bank.pixels() {
            Pixels::U8(pixels) => self.run_on(pixels, pass, totals, of_query, monitor),
            Pixels::F32(pixels) => self.run_on(pixels, pass, totals, of_query, monitor),
        }
    }

    fn run_on<P: Pixel, T: Pass>(
        &self,
        pixels: &[P],
        pass: &T,
        totals: &mut [T::Total],
        of_query: usize,
        monitor: &mut Monitor<'_>,
    ) -> Result<()> {
        let signals = Signals::new();
        let job = Job::new(self.bank, pixels, &self.mirrors, &[], &self.sources, &signals)?;
        let work = (self.queries.len() * self.sources.len) as u64;
        let workspace = size_of::<F64x16>() * (6 * self.len() + 4 * self.filter.count());
        let results = of_query * MIN_PROBES.min(self.queries.len());
        // An image takes as long as there are views of it.
        let values = self.len() * self.filter.views();
        let mut scheduler = Scheduler::with_results(work, values, workspace, results, &signals, monitor)?;
        memory::check_available(scheduler.bytes() + of_query.saturating_mul(self.queries.len()))?;
        let visit =
            |item: &WorkItem, planes: &mut Planes| self.isa.run(Visit { call: self, job: &job, pass, item, planes });
        let items = items_of_views(self.sources.len, self.filter.views(), self.queries.len(), LANES);
        scheduler.run_items(&items, totals, Planes::default, visit, |total, part| pass.merge(total, part))?;
        job.check_unchanged()
    }
}

impl Query {
    fn new(bank: &Bank<'_>, queries: &Queries<'_>, query: usize) -> Self {
        let (unit, centre) = (bank.unit(), bank.range().centre);
        let far_from = FAR_FROM * bank.reach() * unit;
        let z: Array3<f64> = queries.image(query);
        let factors = |&z: &f64| {
            let z = (z - centre) * unit;
            if z.abs() > far_from { [0.0, 2.0 * z] } else { [z, z] }
        };
        Self {
            logit_scale: std::f64::consts::LOG2_E / (2.0 * (queries.sigma()[query] * unit).powi(2)),
            factors: z.iter().map(factors).collect(),
            left_out: queries.atoms().left_out_of(query).to_vec(),
        }
    }
}

/// A work item, and what it takes.
struct Visit<'v, 'j, P, T> {
    call: &'v Call<'v>,
    job: &'v Job<'j, P>,
    pass: &'v T,
    item: &'v WorkItem,
    planes: &'v mut Planes,
}

impl<P: Pixel, T: Pass> Kernel for Visit<'_, '_, P, T> {
    type Output = Vec<T::Partial>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<T::Partial> {
        let Self { call, job, pass, item, planes } = self;
        let mut partials: Vec<T::Partial> =
            item.probes.clone().map(|query| pass.start(call, query, &item.images)).collect();
        for first in item.images.clone().step_by(LANES) {
            let positions = first..item.images.end.min(first + LANES);
            load(call, job, &positions, planes);
            for (number, view) in call.filter.all_views().iter().enumerate() {
                if job.is_stopped() {
                    return partials;
                }
                let viewed = look(call, view, planes);
                for (query, partial) in item.probes.clone().zip(&mut partials) {
                    let (bias, counted) = penalties(call, &call.queries[query], &positions);
                    let pixels = viewed.as_slice();
                    pass.add::<V::F64>(
                        &mut Tile { call, query, first, view: number, pixels, planes: &mut *planes, bias, counted },
                        partial,
                    );
                }
                if view.is_identity() {
                    planes.images = viewed;
                } else {
                    planes.viewed = viewed;
                }
            }
        }
        partials
    }
}

/// Transposes the images at some positions.
#[inline(always)]
fn load<P: Pixel>(call: &Call<'_>, job: &Job<'_, P>, positions: &Range<usize>, planes: &mut Planes) {
    planes.images.resize(call.len(), F64x16::ZERO);
    let images = job.images(positions.clone());
    images.iter().zip(positions.clone()).for_each(|(&image, position)| job.check_images(&[image], position));
    for (block, places) in planes.images.chunks_mut(PIXELS_AT_ONCE).enumerate() {
        for (lane, image) in images.iter().enumerate() {
            for (to, &pixel) in places.iter_mut().zip(&image[block * PIXELS_AT_ONCE..]) {
                to.0[lane] = pixel.number(job.centre);
            }
        }
    }
}

/// Takes the loaded images under a view from the planes; zero in the units of the images where they have no pixel.
#[inline(always)]
fn look(call: &Call<'_>, view: &View, planes: &mut Planes) -> Vec<F64x16> {
    if view.is_identity() {
        return std::mem::take(&mut planes.images);
    }
    let plane = view.from().len();
    let nothing = F64x16([-call.bank.range().centre * call.bank.unit(); LANES]);
    planes.viewed.resize(call.len(), F64x16::ZERO);
    for (viewed, image) in planes.viewed.chunks_exact_mut(plane).zip(planes.images.chunks_exact(plane)) {
        for (to, &from) in viewed.iter_mut().zip(view.from()) {
            *to = if from == View::NONE { nothing } else { image[from as usize] };
        }
    }
    std::mem::take(&mut planes.viewed)
}

/// What is added to the energies of the images at some positions, and which of them count, see [`Tile`].
#[inline(always)]
fn penalties(call: &Call<'_>, query: &Query, positions: &Range<usize>) -> (F64x16, F64x16) {
    let (mut bias, mut counted) = (F64x16::ZERO, F64x16([f64::MAX; LANES]));
    for (lane, position) in positions.clone().enumerate() {
        if query.left_out.is_empty() || query.left_out.binary_search(&(position as u32)).is_err() {
            counted.0[lane] = f64::MIN;
        }
        if call.sources.has_prior() {
            bias.0[lane] = call.sources.below(position) * std::f64::consts::LOG2_E / query.logit_scale;
        }
    }
    (bias, counted)
}

impl Tile<'_> {
    /// Whether there is an image that counts.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.0.iter().all(|&counted| counted >= f64::MAX)
    }

    /// The energies of the images on every component, which replace what the planes held; the largest number for images that
    /// do not count.
    #[inline(always)]
    pub(super) fn energies<V: VectorF64>(&mut self) {
        let Self { call, query, pixels, planes, .. } = self;
        let (filter, factors) = (call.filter, &call.queries[*query].factors);
        let residuals = Residual { pixels, factors };
        fold_channels::<V>(filter, filter.precision().per_value, &residuals, &mut planes.values);
        planes.components.resize(filter.count(), F64x16::ZERO);
        apply::<V>(filter.precision(), filter.shape(), &planes.values, &mut planes.components, &mut planes.scratch);
        let view = &filter.all_views()[self.view];
        let all_count = self.counted.0.iter().all(|&counted| counted <= f64::MIN);
        if view.is_seen_by_all() && !call.sources.has_prior() && all_count {
            return;
        }
        let (bias, counted) = (V::load(&self.bias), V::load(&self.counted));
        for (k, energies) in planes.components.iter_mut().enumerate() {
            // Of images that do not count the maximum is the largest number.
            V::load(energies).add(bias).max(counted).store(energies);
            if !view.is_seen_by_all() && !view.is_seen_by(k) {
                energies.0 = [f64::MAX; LANES];
            }
        }
    }
}

/// A number of every value of sixteen images.
pub(super) trait ValueOf {
    /// That of a value `[channel][row][column]`.
    fn of<V: VectorF64>(&self, value: usize) -> V;
}

/// The squared difference from a query.
struct Residual<'a> {
    pixels: &'a [F64x16],
    factors: &'a [[f64; 2]],
}

impl ValueOf for Residual<'_> {
    #[inline(always)]
    fn of<V: VectorF64>(&self, value: usize) -> V {
        let ([p, q], a) = (self.factors[value], V::load(&self.pixels[value]));
        a.sub(V::splat(p)).mul(a.sub(V::splat(q)))
    }
}

/// Such numbers, summed over channels, or of every value, as weights take them.
#[inline(always)]
pub(super) fn fold_channels<V: VectorF64>(
    filter: &Filter,
    per_value: bool,
    numbers: &impl ValueOf,
    out: &mut Vec<F64x16>,
) {
    let [channels, height, width] = filter.shape();
    let plane = height * width;
    out.resize(if per_value { channels * plane } else { plane }, F64x16::ZERO);
    let further = if per_value { 1 } else { channels };
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = numbers.of::<V>(i);
        for c in 1..further {
            sum = sum.add(numbers.of(c * plane + i));
        }
        sum.store(out);
    }
}
