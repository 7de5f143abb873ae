//! `FilteredPosteriors`: what pass 1 found for queries on the components of a filter, and what can be asked of it.

use ndarray::{Array2, Array3, Array4, Array5, ArrayView1, ArrayView2, ArrayView3, ArrayView4, ArrayView5, Axis, s};

use crate::atoms::Atoms;
use crate::bank::Bank;
use crate::cpu::filtered;
use crate::cpu::general::call::Call;
use crate::cpu::general::composite::composites;
use crate::cpu::general::derivative::{Along, derivatives, given_means, mean_products};
use crate::cpu::general::evidence::Evidence;
use crate::cpu::general::statistics::statistics;
use crate::cpu::general::variance::{entries, moments, variances};
use crate::cpu::memory::check_available;
use crate::directions::part_of_monitor;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::heaviest::{ProbeStatistics, Wanted};
use crate::monitor::Monitor;
use crate::posteriors::{RankDerivatives, Statistics, check_means, check_moments, log2_shares};
use crate::query::Queries;

/// The posteriors over images and views of every query of a call, on every component.
#[derive(Debug)]
pub struct FilteredPosteriors {
    filter: Filter,
    z: Array4<f64>,
    sigma: Vec<f64>,
    atoms: Atoms,
    evidence: Vec<Evidence>,
    log_evidence: Array2<f64>,
}

impl FilteredPosteriors {
    /// Pass 1, on the CPU.
    ///
    /// Errors: those of [`crate::Engine::composite`].
    pub fn new(bank: &Bank<'_>, filter: &Filter, queries: &Queries<'_>, monitor: &mut Monitor<'_>) -> Result<Self> {
        Self::before(bank, filter, queries, 1, monitor)
    }

    /// The first of so many passes.
    fn before(
        bank: &Bank<'_>,
        filter: &Filter,
        queries: &Queries<'_>,
        passes: u64,
        monitor: &mut Monitor<'_>,
    ) -> Result<Self> {
        Self::check_fits(bank, filter)?;
        let call = Call::new(bank, filter, queries)?;
        let evidence = Evidence::find(&call, (0, passes), monitor)?;
        let mut log_evidence = Array2::zeros((queries.len(), filter.count()));
        for (query, found) in evidence.iter().enumerate() {
            let logs = found.log_evidence(&call, query);
            log_evidence.row_mut(query).iter_mut().zip(logs).for_each(|(out, log)| *out = log);
        }
        let z = queries.images();
        let (sigma, atoms) = (queries.sigma().to_vec(), queries.atoms().clone());
        Ok(Self { filter: filter.clone(), z, sigma, atoms, evidence, log_evidence })
    }

    /// The first of so many passes for some of the queries that have these images, levels and images that count.
    pub(crate) fn of_some(
        bank: &Bank<'_>,
        filter: &Filter,
        (z, sigma, atoms): (&Array4<f64>, &[f64], &Atoms),
        some: &[usize],
        passes: u64,
        monitor: &mut Monitor<'_>,
    ) -> Result<Self> {
        let (z, atoms) = (z.select(Axis(0), some), atoms.of_queries(some));
        let sigma: Vec<f64> = some.iter().map(|&query| sigma[query]).collect();
        Self::before(bank, filter, &Queries::new(bank, z.view(), &sigma)?.among(&atoms), passes, monitor)
    }

    /// Both passes of a composite, see [`crate::Engine::composite`].
    ///
    /// Errors: those of that function.
    pub fn denoise(
        bank: &Bank<'_>,
        filter: &Filter,
        queries: &Queries<'_>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f32>> {
        Self::check_fits(bank, filter)?;
        let mut before = 0;
        let mut watch = |done, total| {
            before = total;
            monitor(done, total)
        };
        let found = filtered::composites(bank, filter, queries, &mut watch)?;
        let rest: Vec<usize> = (0..queries.len()).filter(|&query| found[query].is_none()).collect();
        let mut denoised = Array4::zeros(queries.z().shape());
        for (query, values) in found.into_iter().enumerate() {
            let mut out = denoised.slice_mut(s![query, .., .., ..]);
            out.iter_mut().zip(values.into_iter().flatten()).for_each(|(out, value)| *out = value as f32);
        }
        if !rest.is_empty() {
            let mut further = |done: u64, total: u64| monitor(before + done, before + total);
            let all = (&queries.images(), queries.sigma(), queries.atoms());
            let found = Self::of_some(bank, filter, all, &rest, 2, &mut further)?;
            let found = found.composite_as((1, 2), bank, &mut further)?;
            for (&query, found) in rest.iter().zip(found.outer_iter()) {
                denoised.slice_mut(s![query, .., .., ..]).assign(&found);
            }
        }
        Ok(denoised)
    }

    /// The composite and derivatives of it, see [`crate::Engine::jvp`].
    ///
    /// Errors: those of that function.
    pub fn denoise_and_derive(
        bank: &Bank<'_>,
        filter: &Filter,
        queries: &Queries<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<(Array4<f32>, Array5<f32>)> {
        let found = Self::before(bank, filter, queries, 4, monitor)?;
        let denoised = found.composite_as((1, 4), bank, monitor)?;
        Ok((denoised, found.jvp_as((2, 4), bank, directions, transposed, monitor)?))
    }

    /// See [`crate::Posteriors::log_evidence`].
    #[must_use]
    pub fn log_evidence(&self) -> &Array2<f64> {
        &self.log_evidence
    }

    /// See [`crate::Posteriors::composite`].
    ///
    /// Errors: those of that function, here and below.
    pub fn composite(&self, bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<Array4<f32>> {
        self.composite_as((0, 1), bank, monitor)
    }

    fn composite_as(&self, part: (u64, u64), bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<Array4<f32>> {
        let (found, centre) =
            (self.ask(bank, |call| composites(call, &self.evidence, part, monitor))?, bank.range().centre);
        let values: Vec<f32> = found.into_iter().flatten().map(|value| (value + centre) as f32).collect();
        Ok(in_shape(values, self.z.dim()))
    }

    /// What the images of one of several ranks add to composites, see [`crate::Posteriors::contribution`].
    pub(crate) fn contribution(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f64>> {
        let bits = log2_shares(log_shares, self.log_evidence.dim())?;
        let shared: Vec<Evidence> = self.evidence.iter().zip(&bits).map(|(found, bits)| found.shared(bits)).collect();
        let mut found = self.ask(bank, |call| composites(call, &shared, (0, 1), monitor))?;
        for (values, bits) in found.iter_mut().zip(&bits) {
            self.filter.add_centre(bank.range().centre, bits, values);
        }
        Ok(in_shape(found.into_iter().flatten().collect(), self.z.dim()))
    }

    /// The posteriors of one of several ranks, see [`crate::Posteriors::shared`].
    ///
    /// Errors: those of that function.
    pub fn shared(&self, log_shares: ArrayView2<'_, f64>) -> Result<Self> {
        let bits = log2_shares(log_shares, self.log_evidence.dim())?;
        Ok(Self {
            filter: self.filter.clone(),
            z: self.z.clone(),
            sigma: self.sigma.clone(),
            atoms: self.atoms.clone(),
            evidence: self.evidence.iter().zip(&bits).map(|(evidence, bits)| evidence.shared(bits)).collect(),
            log_evidence: &self.log_evidence - &log_shares,
        })
    }

    /// See [`crate::Posteriors::statistics`].
    pub fn statistics(&self, bank: &Bank<'_>, top: usize, monitor: &mut Monitor<'_>) -> Result<Statistics> {
        let (queries, count) = self.log_evidence.dim();
        check_available(top.saturating_mul(24).saturating_add(8).saturating_mul(queries * count))?;
        let images = self.atoms.images().map_or(bank.len(), <[u32]>::len);
        let wanted = Wanted { top: top.min(images * self.filter.views()), attribution: false };
        let found = self.ask(bank, |call| statistics(call, &self.evidence, wanted, monitor))?;
        let mut all = Statistics::new(queries, count, top);
        found.iter().enumerate().for_each(|(query, found)| all.fill(&self.atoms, query, found));
        Ok(all)
    }

    /// See [`crate::Posteriors::attribution`].
    pub fn attribution(&self, bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<Array2<f64>> {
        check_available((8 * bank.len()).saturating_mul(self.sigma.len()))?;
        let wanted = Wanted { top: 0, attribution: true };
        let found: Vec<ProbeStatistics> = self.ask(bank, |call| statistics(call, &self.evidence, wanted, monitor))?;
        let mut all = Array2::zeros((self.sigma.len(), bank.len()));
        for (query, found) in found.iter().enumerate() {
            for (position, sum) in found.attribution.iter().enumerate() {
                all[[query, self.atoms.image_at(position)]] = *sum;
            }
        }
        Ok(all)
    }

    /// See [`crate::Posteriors::variance`].
    pub fn variance(&self, bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<(Array4<f64>, Array3<f64>)> {
        let moments = self.ask(bank, |call| moments(call, &self.evidence, monitor))?;
        Ok(variances_of(bank, &self.filter, &moments))
    }

    /// See [`crate::Posteriors::rank_moments`]; differences are from z, which all ranks have.
    ///
    /// Errors: those of that function.
    pub fn rank_moments(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        _denoised: ArrayView4<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array2<f64>> {
        let (shared, len) = (self.shared(log_shares)?, Self::num_moments(&self.filter));
        check_available(size_of::<f64>().saturating_mul(len).saturating_mul(self.sigma.len()))?;
        let found = shared.ask(bank, |call| moments(call, &shared.evidence, monitor))?;
        let numbers: Vec<f64> = found.into_iter().flatten().flatten().collect();
        Ok(Array2::from_shape_fn((self.sigma.len(), len), |(query, i)| numbers[query * len + i]))
    }

    /// See [`crate::Posteriors::num_moments`].
    #[must_use]
    pub fn num_moments(filter: &Filter) -> usize {
        2 * entries(filter).len()
    }

    /// See [`crate::Posteriors::variance_of_moments`].
    ///
    /// Errors: those of that function; a filter for images of another size.
    pub fn variance_of_moments(
        bank: &Bank<'_>,
        filter: &Filter,
        moments: ArrayView2<'_, f64>,
    ) -> Result<(Array4<f64>, Array3<f64>)> {
        Self::check_fits(bank, filter)?;
        check_moments(moments, Self::num_moments(filter))?;
        let pairs = |row: ArrayView1<'_, f64>| row.to_vec().chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        Ok(variances_of(bank, filter, &moments.outer_iter().map(pairs).collect::<Vec<_>>()))
    }

    /// See [`crate::Posteriors::jvp`].
    pub fn jvp(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array5<f32>> {
        self.jvp_as((0, 2), bank, directions, transposed, monitor)
    }

    fn jvp_as(
        &self,
        part: (u64, u64),
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array5<f32>> {
        let values = self.values_of(directions, transposed)?;
        let along = Along { values: &values, transposed };
        let found = self.ask(bank, |call| derivatives(call, &self.evidence, &along, part, monitor))?;
        let mut out = Array5::zeros(directions.raw_dim());
        write_directions(&found, |direction, query, values| {
            let mut out = out.slice_mut(s![direction, query, .., .., ..]);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = *value as f32);
        });
        Ok(out)
    }

    /// See [`crate::Posteriors::mean_products`].
    ///
    /// Errors: those of that function.
    pub fn mean_products(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array3<f64>> {
        let values = self.values_of(directions, transposed)?;
        let along = Along { values: &values, transposed };
        let found = self.ask(bank, |call| mean_products(call, &self.evidence, &along, (0, 1), monitor))?;
        let (queries, count) = self.log_evidence.dim();
        let mut means = Array3::zeros((directions.len_of(Axis(0)), queries, count));
        write_directions(&found, |direction, query, values| {
            let mut out = means.slice_mut(s![direction, query, ..]);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
        });
        Ok(means)
    }

    /// See [`crate::Posteriors::rank_derivatives`]; nothing is left over.
    ///
    /// Errors: those of that function.
    pub fn rank_derivatives(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        means: ArrayView3<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<RankDerivatives> {
        let values = self.values_of(directions, transposed)?;
        let (along, shared) = (Along { values: &values, transposed }, self.shared(log_shares)?);
        check_means(means, (directions.len_of(Axis(0)), self.log_evidence.dim()))?;
        let of_query = |query| means.index_axis(Axis(1), query).outer_iter().map(|means| means.to_vec()).collect();
        let means: Vec<Vec<Vec<f64>>> = (0..self.sigma.len()).map(of_query).collect();
        let composite = self.contribution(bank, log_shares, &mut part_of_monitor(monitor, 0, 2))?;
        let monitor = &mut part_of_monitor(monitor, 1, 2);
        let found = shared.ask(bank, |call| given_means(call, &shared.evidence, &along, &means, (0, 1), monitor))?;
        let mut all = RankDerivatives { composite, ..RankDerivatives::zeros(directions.dim()) };
        write_directions(&found, |direction, query, values| {
            let mut out = all.along.slice_mut(s![direction, query, .., .., ..]);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
        });
        Ok(all)
    }

    /// Directions as the passes take them, `[query][direction][value]`.
    fn values_of(&self, directions: ArrayView5<'_, f64>, transposed: bool) -> Result<Vec<Vec<Vec<f64>>>> {
        if directions.shape()[1..] != *self.z.shape() {
            let expected = format!("[directions, {:?}]", self.z.shape());
            return Err(Error::Shape { what: "v", found: directions.shape().to_vec(), expected });
        }
        if let Some((index, &value)) = directions.indexed_iter().find(|(_, value)| !value.is_finite()) {
            let index = vec![index.0, index.1, index.2, index.3, index.4];
            return Err(Error::Pixel { what: "v", value, index, limit: f64::MAX });
        }
        let cover = self.filter.cover();
        let of_query = |query: usize| -> Vec<Vec<f64>> {
            let share = |(value, cover): (&f64, &f64)| if transposed { value / cover } else { *value };
            let of_query = directions.slice(s![.., query, .., .., ..]);
            let values = |direction: ArrayView3<'_, f64>| direction.iter().zip(cover).map(share).collect();
            of_query.outer_iter().map(values).collect()
        };
        Ok((0..self.sigma.len()).map(of_query).collect())
    }

    /// Refuses a filter for images of another size than the bank's.
    pub(crate) fn check_fits(bank: &Bank<'_>, filter: &Filter) -> Result<()> {
        if filter.shape() == bank.image_shape() {
            return Ok(());
        }
        let (found, expected) = (filter.shape().to_vec(), format!("{:?}, as the images", bank.image_shape()));
        Err(Error::Shape { what: "the filter", found, expected })
    }

    fn ask<R>(&self, bank: &Bank<'_>, asks: impl FnOnce(&Call<'_>) -> Result<R>) -> Result<R> {
        let queries = Queries::new(bank, self.z.view(), &self.sigma)?.among(&self.atoms);
        asks(&Call::new(bank, &self.filter, &queries)?)
    }
}

/// The variances of values and of the middle pixels of components that moments `[query][entry]` make.
fn variances_of(bank: &Bank<'_>, filter: &Filter, moments: &[Vec<[f64; 2]>]) -> (Array4<f64>, Array3<f64>) {
    let ([channels, height, width], count) = (filter.shape(), filter.count());
    let found = moments.iter().map(|moments| variances(filter, bank.unit(), moments));
    let (values, middles): (Vec<_>, Vec<_>) = found.unzip();
    let middles: Vec<f64> = middles.into_iter().flatten().collect();
    let at = |(query, k, c)| middles[(query * count + k) * channels + c];
    let middles = Array3::from_shape_fn((moments.len(), count, channels), at);
    (in_shape(values.into_iter().flatten().collect(), (moments.len(), channels, height, width)), middles)
}

/// Values in the shape of a batch. As many as it has, they always fit.
fn in_shape<T>(values: Vec<T>, shape: (usize, usize, usize, usize)) -> Array4<T> {
    Array4::from_shape_vec(shape, values).expect("as many values as a batch has")
}

/// Calls `write` with the direction, the query and the values of each `[query][direction]`.
fn write_directions(found: &[Vec<Vec<f64>>], mut write: impl FnMut(usize, usize, &[f64])) {
    for (query, of_query) in found.iter().enumerate() {
        of_query.iter().enumerate().for_each(|(direction, values)| write(direction, query, values));
    }
}
