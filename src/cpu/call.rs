//! `Call`: what all passes of a call share, and how its queries are cut into batches that fit memory.

use std::ops::Range;
use std::sync::Arc;

use super::job::{Job, Signals};
use super::memory;
use super::probe::Probe;
use super::scheduler::{self, Scheduler};
use super::sparse;
use super::tile::Pixel;
use crate::bank::{Bank, Pixels};
use crate::components::{Components, Kind};
use crate::error::Result;
use crate::monitor::Monitor;
use crate::query::Queries;
use crate::regime::Regime;
use crate::sources::Sources;

/// Most queries that are computed together.
const MAX_QUERIES: usize = 128;

/// Bytes that the queries computed together may take.
const MAX_BYTES: usize = 1 << 27;

/// Work on the queries of a batch, whatever the pixels are.
pub(crate) trait Work {
    /// What it finds for a query.
    type Found;

    /// Passes over all images that it takes, at most, but for those that are repeated in float64.
    fn passes(&self, call: &Call<'_, '_>) -> usize;

    /// Bytes that it takes besides those of a composite.
    fn memory(&self, _call: &Call<'_, '_>) -> Memory {
        Memory::default()
    }

    /// What it finds for the queries of a job, in order.
    fn run<P: Pixel>(&self, job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Self::Found>>;
}

/// Bytes that work takes besides those of a composite.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// For every query that is computed together with others.
    pub(crate) per_query: usize,
    /// For every probe of a work item, on each thread.
    pub(crate) per_probe: usize,
    /// For what is returned, all queries together.
    pub(crate) results: usize,
}

/// What all passes of a call share.
pub(crate) struct Call<'a, 'q> {
    pub(crate) bank: &'a Bank<'a>,
    /// The components, and their mirror images for flipped probes.
    pub(crate) mirrors: [Components; 2],
    pub(crate) queries: &'a Queries<'q>,
    pub(crate) flips: bool,
    pub(crate) sources: Sources<'a>,
}

impl<'a, 'q> Call<'a, 'q> {
    pub(crate) fn new(bank: &'a Bank<'a>, components: &Components, queries: &'a Queries<'q>, flips: bool) -> Self {
        let mirrors = [components.clone(), components.mirrored()];
        Self { bank, mirrors, queries, flips, sources: Sources::new(bank, queries.atoms()) }
    }

    /// Whether a query may take the sparse route.
    pub(crate) fn may_list(&self) -> bool {
        let is_sparse = |&sigma: &f64| Regime::at(sigma, self.bank.reach()).sparse;
        !matches!(self.mirrors[0].kind(), Kind::Full) && self.queries.sigma().iter().any(is_sparse)
    }

    /// Probes per query.
    pub(crate) fn sides(&self) -> usize {
        if self.flips { 2 } else { 1 }
    }

    /// Does the work on all queries, batch by batch, and hands what it finds to `consume` with the number of the query.
    pub(crate) fn run<W: Work>(
        &self,
        work: &W,
        monitor: &mut Monitor<'_>,
        mut consume: impl FnMut(usize, W::Found),
    ) -> Result<()> {
        let (signals, count) = (Signals::new(), self.queries.len());
        let pairs = work.passes(self) * self.sources.len * count * self.sides();
        let more = work.memory(self);
        let at_once = self.queries_at_once(more.per_query);
        let queries = at_once.min(count);
        let probes = queries * self.sides();
        let probes_of_item = probes.min(scheduler::MIN_PROBES);
        let workspace =
            memory::workspace(self.bank, &self.mirrors[0], probes_of_item) + probes_of_item * more.per_probe;
        let image_len = self.bank.image_len();
        let mut scheduler = Scheduler::new(pairs as u64, &self.mirrors[0], image_len, workspace, &signals, monitor)?;
        let in_flight = probes * self.bytes_per_probe() + queries * more.per_query;
        let results = image_len * count * size_of::<f32>() + more.results;
        memory::check_available((scheduler.bytes() + in_flight).saturating_add(results))?;
        for start in (0..count).step_by(at_once) {
            let batch = start..count.min(start + at_once);
            let probes = self.probes(batch.clone());
            let found = match self.bank.pixels() {
                Pixels::U8(pixels) => work.run(&self.job(pixels, &probes, &signals)?, &mut scheduler),
                Pixels::F32(pixels) => work.run(&self.job(pixels, &probes, &signals)?, &mut scheduler),
            }?;
            batch.zip(found).for_each(|(query, found)| consume(query, found));
        }
        scheduler.finish()
    }

    fn job<'j, P: Pixel>(&'j self, pixels: &'j [P], probes: &'j [Probe], signals: &'j Signals) -> Result<Job<'j, P>> {
        Job::new(self.bank, pixels, &self.mirrors, probes, &self.sources, signals)
    }

    /// The probes of some queries; those of their mirror images follow, in the same order.
    fn probes(&self, queries: Range<usize>) -> Vec<Probe> {
        let left_out: Vec<Arc<[u32]>> = queries.clone().map(|q| self.queries.atoms().left_out_of(q).into()).collect();
        let probe = |q: usize, flipped: bool| {
            let (components, z) = (&self.mirrors[usize::from(flipped)], self.queries.image(q));
            Probe::new(self.bank, components, z.view(), self.queries.sigma()[q], q, flipped)
                .among(&self.sources, &left_out[q - queries.start])
        };
        let flipped = queries.clone().filter(|_| self.flips).map(|q| probe(q, true));
        queries.clone().map(|q| probe(q, false)).chain(flipped).collect()
    }

    /// Bytes of a probe: z, sums, results that wait for their merge, and between the passes all energies, lists of
    /// candidates or posteriors.
    fn bytes_per_probe(&self) -> usize {
        let components = &self.mirrors[0];
        let between = match components.kind() {
            Kind::Full => 4 * self.sources.len,
            Kind::Square { .. } | Kind::Masks(_) if self.may_list() => sparse::max_list_bytes(components.count()),
            Kind::Square { .. } | Kind::Masks(_) => 40 * components.count(),
        };
        let left_out = (0..self.queries.len()).map(|q| self.queries.atoms().left_out_of(q).len()).max().unwrap_or(0);
        32 * self.bank.image_len() + between + 4 * left_out
    }

    /// How many queries to compute together: a multiple of the probes of a work item where memory allows.
    fn queries_at_once(&self, more: usize) -> usize {
        let fitting = MAX_BYTES / (2 * self.bytes_per_probe() + more);
        if fitting < scheduler::MIN_PROBES {
            fitting.max(1)
        } else {
            (fitting - fitting % scheduler::MIN_PROBES).min(MAX_QUERIES)
        }
    }
}
