//! `Evidence`: what pass 1 finds for a query, by the route it took, and how further passes that need it are run.

use super::call::{Call, Memory, Work};
use super::dense::{self, Double, Single, arithmetic::Arithmetic};
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::probe::Probe;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::components::Kind;
use crate::error::Result;
use crate::posterior::Posterior;

/// What pass 1 finds for a query.
#[derive(Debug, Clone)]
pub(crate) enum Evidence {
    /// The state of every window's softmax, on the dense route; whether energies are float64.
    Windows(Posterior, bool),
    /// The weight of every image, on the full route.
    Images(ImagePosterior),
    /// The few images that carry weight on every window, on the sparse route.
    Lists(WeighedLists),
}

impl Evidence {
    /// The evidence of one of several ranks, see [`Posterior::shared`].
    pub(crate) fn shared(&self, log2_shares: &[f64]) -> Self {
        match self {
            Self::Windows(posterior, in_double) => Self::Windows(posterior.shared(log2_shares), *in_double),
            Self::Images(posterior) => Self::Images(posterior.shared(log2_shares[0])),
            Self::Lists(lists) => Self::Lists(lists.shared(log2_shares)),
        }
    }

    /// The logarithm of the sum of weights of every window, in nats, for the probe of the query.
    fn log_evidence<P: Pixel>(&self, job: &Job<'_, P>, probe: &Probe) -> Vec<f64> {
        match self {
            Self::Images(posterior) => vec![posterior.log_evidence],
            Self::Lists(lists) => {
                let nats = |bits: f64| bits * std::f64::consts::LN_2 + job.sources.log_prior;
                lists.log2_sums.iter().copied().map(nats).collect()
            }
            Self::Windows(posterior, in_double) => {
                let plane = job.plane();
                let left_out: Vec<f64> = probe.energy_left_out(*in_double).collect();
                let of_pixel = |p: usize| left_out[p..].iter().step_by(plane).sum();
                let constants = job.mirrors[0].sums(&(0..plane).map(of_pixel).collect::<Vec<f64>>());
                let nats = |(bits, constant): (f64, f64)| {
                    (bits - probe.logit_scale * constant) * std::f64::consts::LN_2 + job.sources.log_prior
                };
                posterior.log2_sums().zip(constants).map(nats).collect()
            }
        }
    }
}

/// Pass 1: finds the evidence of every query, and the logarithms of the sums of weights of its windows, in nats.
pub(crate) struct FindEvidence;

impl Work for FindEvidence {
    type Found = (Evidence, Vec<f64>);

    fn passes(&self, _call: &Call<'_, '_>) -> usize {
        1
    }

    /// The evidence of all queries is kept: at least the weights of all images, or the state of every window.
    fn memory(&self, call: &Call<'_, '_>) -> Memory {
        let of_query = match call.mirrors[0].kind() {
            Kind::Full => size_of::<f32>() * call.sources.len * call.sides(),
            Kind::Square { .. } | Kind::Masks(_) => 3 * size_of::<f64>() * call.mirrors[0].count(),
        };
        Memory { results: of_query.saturating_mul(call.queries.len()), ..Memory::default() }
    }

    fn run<P: Pixel>(&self, job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Self::Found>> {
        let mut evidence: Vec<Option<Evidence>> = vec![None; job.queries()];
        let sparse = sparse_queries(job);
        if !sparse.is_empty() {
            let probes = job.probes_of(&sparse);
            for (&query, lists) in sparse.iter().zip(sparse::evidence(&job.with(&probes), scheduler)?) {
                evidence[query] = lists.map(Evidence::Lists);
            }
        }
        let rest: Vec<usize> = (0..evidence.len()).filter(|&query| evidence[query].is_none()).collect();
        if !rest.is_empty() {
            let probes = job.probes_of(&rest);
            let found = evidence_of_all_images(&job.with(&probes), scheduler)?;
            rest.iter().zip(found).for_each(|(&query, found)| evidence[query] = Some(found));
        }
        let with_logs = |(evidence, probe): (Evidence, &Probe)| {
            let logs = evidence.log_evidence(job, probe);
            (evidence, logs)
        };
        Ok(evidence.into_iter().flatten().zip(job.probes).map(with_logs).collect())
    }
}

/// The queries for which a scan lists the images that carry weight. The full window keeps all energies, and needs no list.
pub(crate) fn sparse_queries<P: Pixel>(job: &Job<'_, P>) -> Vec<usize> {
    let has_lists = !matches!(job.mirrors[0].kind(), Kind::Full);
    (0..job.queries()).filter(|&query| has_lists && job.probes[query].regime.sparse).collect()
}

/// The evidence of every query on the routes that weigh every image.
pub(crate) fn evidence_of_all_images<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
) -> Result<Vec<Evidence>> {
    match job.mirrors[0].kind() {
        Kind::Full => Ok(full::evidence(job, scheduler)?.into_iter().map(Evidence::Images).collect()),
        Kind::Square { .. } | Kind::Masks(_) => {
            let found = dense::evidence(job, scheduler)?;
            Ok(found.into_iter().map(|(posterior, in_double)| Evidence::Windows(posterior, in_double)).collect())
        }
    }
}

/// A further pass, or several, for queries whose evidence is known, on every route.
pub(crate) trait Pass {
    /// What it finds for a query.
    type Found;

    /// Passes over all images that it takes, at most.
    fn passes(&self, _call: &Call<'_, '_>) -> usize {
        1
    }

    /// On the dense route, given the softmax of every window.
    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&Posterior],
    ) -> Result<Vec<Self::Found>>;

    /// On the full route, given the weight of every image.
    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<Self::Found>>;

    /// On the sparse route, given the images that carry weight.
    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<Self::Found>>;
}

/// Runs a pass for the queries of a job, whose evidence this is, in order.
pub(crate) fn run_pass<P: Pixel, T: Pass>(
    pass: &T,
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    evidence: &[&Evidence],
) -> Result<Vec<T::Found>> {
    let (mut single, mut double, mut images, mut lists) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (query, evidence) in evidence.iter().enumerate() {
        match evidence {
            Evidence::Windows(posterior, false) => single.push((query, posterior)),
            Evidence::Windows(posterior, true) => double.push((query, posterior)),
            Evidence::Images(posterior) => images.push((query, posterior)),
            Evidence::Lists(of_query) => lists.push((query, of_query)),
        }
    }
    let mut found: Vec<Option<T::Found>> = evidence.iter().map(|_| None).collect();
    let mut place = |queries: Vec<usize>, of_queries: Vec<T::Found>| {
        queries.into_iter().zip(of_queries).for_each(|(query, of_query)| found[query] = Some(of_query));
    };
    if !single.is_empty() {
        let (queries, posteriors): (Vec<usize>, Vec<&Posterior>) = single.into_iter().unzip();
        let probes = job.probes_of(&queries);
        place(queries, pass.dense::<P, Single>(&job.with(&probes), scheduler, &posteriors)?);
    }
    if !double.is_empty() {
        let (queries, posteriors): (Vec<usize>, Vec<&Posterior>) = double.into_iter().unzip();
        let probes: Vec<Probe> = job.probes_of(&queries).into_iter().map(Probe::into_double).collect();
        place(queries, pass.dense::<P, Double>(&job.with(&probes), scheduler, &posteriors)?);
    }
    if !images.is_empty() {
        let (queries, posteriors): (Vec<usize>, Vec<&ImagePosterior>) = images.into_iter().unzip();
        let probes = job.probes_of(&queries);
        place(queries, pass.full(&job.with(&probes), scheduler, &posteriors)?);
    }
    if !lists.is_empty() {
        let (queries, lists): (Vec<usize>, Vec<&WeighedLists>) = lists.into_iter().unzip();
        let probes = job.probes_of(&queries);
        place(queries, pass.sparse(&job.with(&probes), scheduler, &lists)?);
    }
    Ok(found.into_iter().flatten().collect())
}

/// A pass as work on the queries of a call, given their evidence.
pub(crate) struct OnEvidence<'a, T> {
    pub(crate) pass: T,
    pub(crate) evidence: &'a [Evidence],
    /// Bytes that the pass takes besides those of a composite.
    pub(crate) memory: Memory,
}

impl<T: Pass> Work for OnEvidence<'_, T> {
    type Found = T::Found;

    fn passes(&self, call: &Call<'_, '_>) -> usize {
        self.pass.passes(call)
    }

    fn memory(&self, _call: &Call<'_, '_>) -> Memory {
        self.memory
    }

    fn run<P: Pixel>(&self, job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<T::Found>> {
        let evidence: Vec<&Evidence> =
            job.probes[..job.queries()].iter().map(|probe| &self.evidence[probe.query]).collect();
        run_pass(&self.pass, job, scheduler, &evidence)
    }
}
