//! The composite on the CPU: shards of the bank times blocks of probes, in two passes, on the engine's threads.
//!
//! There are three routes. Where sigma is small, [`sparse`] scans for the few images that carry weight and weighs those
//! alone. Otherwise [`dense`] weighs every image on every window, and [`full`] does so where the only window is the full
//! image.
//!
//! - A *probe* is a query, or its mirror image where flips count: `|z - flip x| = |flip z - x|`, so flips cost a second
//!   probe on the same tile and no second copy of the data; both share one softmax.
//! - A *shard* is consecutive images, and its length depends on the bank alone. A *work item* is one shard and a few probes;
//!   work items run on any thread, their results are merged in the order of the shards, so the bits are always the same.
//! - Within a work item, *groups* of tiles ([`dense::group`]) are transposed once and used by every probe.

mod buffer_pool;
mod chunks;
pub(crate) mod dense;
pub(crate) mod full;
mod job;
mod memory;
pub(crate) mod peak;
mod precision;
pub(crate) mod probe;
mod scheduler;
pub(crate) mod sparse;
pub(crate) mod tile;

use ndarray::{Array3, Array4, ArrayViewMut3, s};

use crate::bank::{Bank, Pixels};
use crate::components::{Components, Kind};
use crate::error::Result;
use crate::monitor::Monitor;
use crate::query::Queries;
use crate::regime::Regime;
use job::{Job, Signals};
use probe::Probe;
use scheduler::Scheduler;
use tile::Pixel;

/// Most queries that are computed together.
const MAX_QUERIES: usize = 128;

/// Bytes that the queries computed together may take.
const MAX_BYTES: usize = 1 << 27;

/// See [`crate::Engine::composite`].
pub(crate) fn composite(
    bank: &Bank<'_>,
    components: &Components,
    queries: &Queries<'_>,
    flips: bool,
    monitor: &mut Monitor<'_>,
) -> Result<Array4<f32>> {
    let mirrors = [components.clone(), components.mirrored()];
    let (cover, sigma) = (components.cover(), queries.sigma());
    // Two passes over every image for every probe.
    let work = 2 * bank.len() * sigma.len() * if flips { 2 } else { 1 };
    let signals = Signals::new();
    let at_once = queries_at_once(bank, components, sigma);
    let probes = at_once.min(sigma.len()) * if flips { 2 } else { 1 };
    let workspace = memory::workspace(bank, components, probes);
    let mut scheduler = Scheduler::new(work as u64, components, bank.image_len(), workspace, &signals, monitor)?;
    let in_flight = probes * bytes_per_probe(bank, components, sigma);
    let results = bank.image_len() * sigma.len() * size_of::<f32>();
    memory::check_available(scheduler.bytes() + in_flight + results)?;
    let mut denoised = Array4::zeros(queries.z().shape());
    for start in (0..sigma.len()).step_by(at_once) {
        let batch = start..sigma.len().min(start + at_once);
        let probe = |q: usize, flipped: bool| {
            Probe::new(bank, &mirrors[usize::from(flipped)], queries.image(q).view(), sigma[q], q, flipped)
        };
        let flipped = batch.clone().filter(|_| flips).map(|q| probe(q, true));
        let probes: Vec<Probe> = batch.clone().map(|q| probe(q, false)).chain(flipped).collect();
        let sums = match bank.pixels() {
            Pixels::U8(pixels) => sums_of(&Job::new(bank, pixels, &mirrors, &probes, &signals)?, &mut scheduler)?,
            Pixels::F32(pixels) => sums_of(&Job::new(bank, pixels, &mirrors, &probes, &signals)?, &mut scheduler)?,
        };
        for (q, sums) in sums {
            finish(bank, &cover, &sums, denoised.slice_mut(s![q, .., .., ..]));
        }
    }
    Ok(denoised)
}

/// Bytes of a probe: z, sums, results that wait for their merge, and between the passes all energies, lists of candidates
/// or posteriors.
fn bytes_per_probe(bank: &Bank<'_>, components: &Components, sigma: &[f64]) -> usize {
    let is_sparse = |&sigma: &f64| Regime::at(sigma, bank.reach()).sparse;
    let between = match components.kind() {
        Kind::Full => 4 * bank.len(),
        Kind::Square { .. } | Kind::Masks(_) if sigma.iter().any(is_sparse) => {
            sparse::max_list_bytes(components.count())
        }
        Kind::Square { .. } | Kind::Masks(_) => 40 * components.count(),
    };
    32 * bank.image_len() + between
}

/// How many queries to compute together: a multiple of the probes of a work item where memory allows.
fn queries_at_once(bank: &Bank<'_>, components: &Components, sigma: &[f64]) -> usize {
    let fitting = MAX_BYTES / (2 * bytes_per_probe(bank, components, sigma));
    if fitting < scheduler::MIN_PROBES {
        fitting.max(1)
    } else {
        (fitting - fitting % scheduler::MIN_PROBES).min(MAX_QUERIES)
    }
}

/// The index of a query and the weighted sums of centred stored pixels, of the query and of its mirror image.
type QuerySums = (usize, [Array3<f64>; 2]);

/// The sums of every query of a job, in any order.
fn sums_of<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<QuerySums>> {
    // The full window keeps all energies, and needs no list.
    let has_lists = !matches!(job.mirrors[0].kind(), Kind::Full);
    let (sparse, mut dense): (Vec<Probe>, Vec<Probe>) =
        job.probes.iter().cloned().partition(|probe| has_lists && probe.regime.sparse);
    let mut done = Vec::new();
    if !sparse.is_empty() {
        for (probe, sums) in sparse.iter().zip(sparse::sums(&job.with(&sparse), scheduler)?) {
            done.extend(sums.map(|sums| (probe.query, sums)));
        }
        let is_left = |probe: &Probe| !done.iter().any(|(query, _)| *query == probe.query);
        dense.extend(sparse.into_iter().filter(is_left));
        dense.sort_by_key(|probe| (probe.flipped, probe.query));
    }
    if !dense.is_empty() {
        let job = job.with(&dense);
        let queries = job.queries();
        let sums = match job.mirrors[0].kind() {
            Kind::Full => full::sums(&job, scheduler)?,
            Kind::Square { .. } | Kind::Masks(_) => dense::sums(&job, scheduler)?,
        };
        done.extend(pair_up(&job, &dense[..queries], sums));
    }
    Ok(done)
}

/// The sums of queries' probes, followed by those of their flipped probes if there are any, as pairs by query.
fn pair_up<P: Pixel>(job: &Job<'_, P>, queries: &[Probe], mut sums: Vec<Array3<f64>>) -> Vec<QuerySums> {
    let mut flipped = sums.split_off(queries.len()).into_iter();
    let zero = || Array3::zeros(job.bank.image_shape());
    queries.iter().zip(sums).map(|(p, sums)| (p.query, [sums, flipped.next().unwrap_or_else(zero)])).collect()
}

/// Adds the mirrored half, divides by the cover and returns to the units of the images.
fn finish(bank: &Bank<'_>, cover: &[u32], [sums, flipped]: &[Array3<f64>; 2], mut out: ArrayViewMut3<'_, f32>) {
    let (unit, centre, width) = (bank.unit(), bank.range().centre, sums.dim().2);
    for ((c, y, x), value) in out.indexed_iter_mut() {
        let sum = sums[[c, y, x]] + flipped[[c, y, width - 1 - x]];
        *value = (sum / (f64::from(cover[y * width + x]) * unit) + centre) as f32;
    }
}
