//! What is asked of the route: composites, or one of their passes.

use super::call::Call;
use super::means::TotalMeans;
use crate::bank::{Bank, Pixels};
use crate::components::Components;
use crate::cpu::job::{Job, Signals};
use crate::cpu::probe::Probe;
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::filter::Filter;
use crate::monitor::Monitor;
use crate::query::Queries;
use crate::sources::Sources;

/// A pass, or both.
trait Stage {
    /// What it finds for a query.
    type Found;

    /// What it finds for the probes of a job; `None` where float32 does not serve.
    fn run<P: Pixel>(
        &self,
        call: &Call<'_>,
        job: &Job<'_, P>,
        signals: &Signals,
        monitor: &mut Monitor<'_>,
    ) -> Result<Vec<Option<Self::Found>>>;
}

/// Runs a stage for the queries that `serves` names; `None` where float32 does not serve, and for all of them if the filter is of
/// another kind.
fn run_stage<S: Stage>(
    bank: &Bank<'_>,
    filter: &Filter,
    queries: &Queries<'_>,
    serves: impl Fn(usize) -> bool,
    stage: &S,
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Option<S::Found>>> {
    let mut found: Vec<Option<S::Found>> = (0..queries.len()).map(|_| None).collect();
    let Some(call) = Call::new(bank, filter)? else { return Ok(found) };
    let sources = Sources::new(bank, queries.atoms());
    let probes =
        (0..queries.len()).filter(|&query| serves(query)).map(|query| call.probe(bank, queries, query, &sources));
    let probes: Vec<Probe> = probes.filter(|probe| !probe.needs_double).collect();
    if probes.is_empty() {
        return Ok(found);
    }
    let (signals, [_, height, width]) = (Signals::new(), filter.shape());
    let whole = Components::full(height, width)?;
    let mirrors = [whole.clone(), whole];
    let of_probes = match bank.pixels() {
        Pixels::U8(pixels) => {
            stage.run(&call, &Job::new(bank, pixels, &mirrors, &probes, &sources, &signals)?, &signals, monitor)
        }
        Pixels::F32(pixels) => {
            stage.run(&call, &Job::new(bank, pixels, &mirrors, &probes, &sources, &signals)?, &signals, monitor)
        }
    }?;
    for (probe, values) in probes.iter().zip(of_probes) {
        found[probe.query] = values;
    }
    Ok(found)
}

/// The composites of queries, in the units of the images, `[channel][row][column]`; `None` where float32 does not serve.
/// `None` for all of them if the filter is of another kind.
pub(crate) fn composites(
    bank: &Bank<'_>,
    filter: &Filter,
    queries: &Queries<'_>,
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Option<Vec<f64>>>> {
    run_stage(bank, filter, queries, |_| true, &BothPasses, monitor)
}

/// What the first pass finds for a query, and the logarithms of the sums of weights of its components, in nats.
pub(crate) type FirstFound = (TotalMeans, Vec<f64>);

/// The first pass alone: the posteriors of queries, with the logarithms of the sums of weights of their components, in nats.
pub(crate) fn evidence(
    bank: &Bank<'_>,
    filter: &Filter,
    queries: &Queries<'_>,
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Option<FirstFound>>> {
    run_stage(bank, filter, queries, |_| true, &FirstPass, monitor)
}

/// What the images of one of several ranks add to composites, given the evidence of some queries and their base-2 logarithms of
/// [`Posterior::shared`](crate::posterior::Posterior::shared).
pub(crate) fn contributions(
    bank: &Bank<'_>,
    filter: &Filter,
    queries: &Queries<'_>,
    evidence: &[Option<(&TotalMeans, Vec<f64>)>],
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Option<Vec<f64>>>> {
    run_stage(bank, filter, queries, |query| evidence[query].is_some(), &Contribution { evidence }, monitor)
}

struct BothPasses;

impl Stage for BothPasses {
    type Found = Vec<f64>;

    fn run<P: Pixel>(
        &self,
        call: &Call<'_>,
        job: &Job<'_, P>,
        signals: &Signals,
        monitor: &mut Monitor<'_>,
    ) -> Result<Vec<Option<Vec<f64>>>> {
        let mut scheduler = call.scheduler(job, call.passes(), call.answers(), signals, monitor)?;
        let totals = call.first_pass(job, &mut scheduler)?;
        let served: Vec<usize> = (0..totals.len()).filter(|&i| totals[i].is_some()).collect();
        let evidence: Vec<(&TotalMeans, Option<&[f64]>)> = totals.iter().flatten().map(|total| (total, None)).collect();
        let mut found = vec![None; totals.len()];
        for (i, values) in served.iter().zip(call.finish(job, &served, &evidence, &mut scheduler)?) {
            found[*i] = Some(values);
        }
        scheduler.finish()?;
        Ok(found)
    }
}

struct FirstPass;

impl Stage for FirstPass {
    type Found = FirstFound;

    fn run<P: Pixel>(
        &self,
        call: &Call<'_>,
        job: &Job<'_, P>,
        signals: &Signals,
        monitor: &mut Monitor<'_>,
    ) -> Result<Vec<Option<Self::Found>>> {
        let mut scheduler = call.scheduler(job, 1, call.answers(), signals, monitor)?;
        let totals = call.first_pass(job, &mut scheduler)?;
        scheduler.finish()?;
        let with_logs = |(total, probe): (TotalMeans, &Probe)| {
            let logs = call.log_evidence(job, probe, &total);
            (total, logs)
        };
        let totals = totals.into_iter().zip(job.probes);
        Ok(totals.map(|(total, probe)| total.map(|total| with_logs((total, probe)))).collect())
    }
}

/// Evidence and shares of every query.
struct Contribution<'a> {
    evidence: &'a [Option<(&'a TotalMeans, Vec<f64>)>],
}

impl Stage for Contribution<'_> {
    type Found = Vec<f64>;

    fn run<P: Pixel>(
        &self,
        call: &Call<'_>,
        job: &Job<'_, P>,
        signals: &Signals,
        monitor: &mut Monitor<'_>,
    ) -> Result<Vec<Option<Vec<f64>>>> {
        let of_probe =
            |probe: &Probe| self.evidence[probe.query].as_ref().map(|(total, shares)| (*total, Some(&shares[..])));
        let evidence: Vec<_> = job.probes.iter().filter_map(of_probe).collect();
        let all: Vec<usize> = (0..evidence.len()).collect();
        let mut scheduler = call.scheduler(job, call.passes() - 1, 0, signals, monitor)?;
        let found = call.finish(job, &all, &evidence, &mut scheduler)?;
        scheduler.finish()?;
        Ok(found.into_iter().map(Some).collect())
    }
}
