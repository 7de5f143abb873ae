//! `RankEvidence`: pass 1 of a composite over one of several ranks of the images, in whatever precision serves the composite.

use ndarray::{Array2, Array4, ArrayView2, Axis};

use crate::atoms::Atoms;
use crate::bank::Bank;
use crate::components::Components;
use crate::cpu::filtered::{self, TotalMeans};
use crate::engine::Engine;
use crate::error::Result;
use crate::filter::Filter;
use crate::filtered::FilteredPosteriors;
use crate::monitor::Monitor;
use crate::posteriors::{Posteriors, log2_shares};
use crate::query::Queries;

/// What pass 1 finds for queries on one of several ranks of the images. Once the log evidence of all ranks is known, it becomes
/// what the images of this one add to the composites.
#[derive(Debug)]
pub struct RankEvidence {
    found: Found,
    log_evidence: Array2<f64>,
}

#[derive(Debug)]
enum Found {
    Windows(Box<Posteriors>),
    Filter(Box<FilterEvidence>),
}

/// Components of a filter: in float32 where it serves, the others in float64.
#[derive(Debug)]
struct FilterEvidence {
    filter: Filter,
    z: Array4<f64>,
    sigma: Vec<f64>,
    atoms: Atoms,
    single: Vec<Option<TotalMeans>>,
    /// Queries that float32 does not serve, and their posteriors.
    double: Option<(Vec<usize>, FilteredPosteriors)>,
}

impl RankEvidence {
    /// On windows; the arguments and errors are those of [`Engine::evidence`].
    pub fn on_windows(
        engine: &Engine,
        bank: &Bank<'_>,
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Self> {
        let found = engine.evidence(bank, components, queries, flips, monitor)?;
        let log_evidence = found.log_evidence().clone();
        Ok(Self { found: Found::Windows(Box::new(found)), log_evidence })
    }

    /// On the components of a filter.
    ///
    /// Errors: those of [`FilteredPosteriors::new`].
    pub fn on_filter(
        bank: &Bank<'_>,
        filter: &Filter,
        queries: &Queries<'_>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Self> {
        FilteredPosteriors::check_fits(bank, filter)?;
        let mut log_evidence = Array2::zeros((queries.len(), filter.count()));
        let mut single = Vec::with_capacity(queries.len());
        for (query, found) in filtered::evidence(bank, filter, queries, monitor)?.into_iter().enumerate() {
            single.push(found.map(|(total, logs)| {
                log_evidence.row_mut(query).iter_mut().zip(logs).for_each(|(out, log)| *out = log);
                total
            }));
        }
        let rest: Vec<usize> = (0..queries.len()).filter(|&query| single[query].is_none()).collect();
        let (z, sigma, atoms) = (queries.images(), queries.sigma().to_vec(), queries.atoms().clone());
        let mut double = None;
        if !rest.is_empty() {
            let found = FilteredPosteriors::of_some(bank, filter, (&z, &sigma, &atoms), &rest, 1, monitor)?;
            for (&query, logs) in rest.iter().zip(found.log_evidence().outer_iter()) {
                log_evidence.row_mut(query).assign(&logs);
            }
            double = Some((rest, found));
        }
        let found = FilterEvidence { filter: filter.clone(), z, sigma, atoms, single, double };
        Ok(Self { found: Found::Filter(Box::new(found)), log_evidence })
    }

    /// The logarithms of the sums of weights over the images of the rank, in nats, `[query, component]`.
    #[must_use]
    pub fn log_evidence(&self) -> &Array2<f64> {
        &self.log_evidence
    }

    /// What the images of the rank add to the composites `[query, channel, row, column]`; those of all ranks sum up to them.
    /// `log_shares` are those of [`Posteriors::shared`].
    ///
    /// Errors: those of that function and of [`Engine::composite`].
    pub fn contribution(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f64>> {
        match &self.found {
            Found::Windows(posteriors) => posteriors.contribution(bank, log_shares, monitor),
            Found::Filter(evidence) => evidence.contribution(bank, log_shares, monitor),
        }
    }
}

impl FilterEvidence {
    fn contribution(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f64>> {
        let bits = log2_shares(log_shares, (self.sigma.len(), self.filter.count()))?;
        let served = self.single.iter().zip(bits).map(|(total, bits)| total.as_ref().map(|total| (total, bits)));
        let evidence: Vec<_> = served.collect();
        let queries = Queries::new(bank, self.z.view(), &self.sigma)?.among(&self.atoms);
        let mut added = Array4::zeros(self.z.raw_dim());
        let found = filtered::contributions(bank, &self.filter, &queries, &evidence, monitor)?;
        for (values, mut out) in found.into_iter().zip(added.outer_iter_mut()) {
            out.iter_mut().zip(values.into_iter().flatten()).for_each(|(out, value)| *out = value);
        }
        if let Some((rest, posteriors)) = &self.double {
            let found = posteriors.contribution(bank, log_shares.select(Axis(0), rest).view(), monitor)?;
            for (&query, found) in rest.iter().zip(found.outer_iter()) {
                added.index_axis_mut(Axis(0), query).assign(&found);
            }
        }
        Ok(added)
    }
}
