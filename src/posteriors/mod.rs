//! `Posteriors`: what pass 1 found for the queries of a call, and what can be asked of it.

mod ranks;

#[cfg(feature = "cuda")]
use std::sync::Arc;

use ndarray::{Array2, Array3, Array4, Array5, ArrayView4, ArrayView5, Axis, Slice, s};

use crate::atoms::Atoms;
use crate::bank::Bank;
use crate::components::Components;
use crate::cpu::call::{Call, Memory};
use crate::cpu::composite::Composite;
use crate::cpu::derivative::Derivative;
use crate::cpu::evidence::{Evidence, FindEvidence, OnEvidence, Pass};
use crate::cpu::memory::check_available;
use crate::cpu::statistics::Statistics as StatisticsPass;
use crate::cpu::variance::Variance;
#[cfg(feature = "cuda")]
use crate::cuda::{CudaEngine, DeviceEvidence, Question};
use crate::directions::{Directions, part_of_monitor, parts_of};
use crate::error::Result;
use crate::found::{MirrorSums, QueryDerivative, QueryVariance, finish, merged};
use crate::heaviest::{ProbeStatistics, Wanted};
use crate::monitor::Monitor;
use crate::query::Queries;

pub use ranks::RankDerivatives;
pub(crate) use ranks::{check_means, check_moments, log2_shares};

/// The posteriors over images of every query of a call, on every window.
#[derive(Debug)]
pub struct Posteriors {
    components: Components,
    z: Array4<f64>,
    sigma: Vec<f64>,
    atoms: Atoms,
    flips: bool,
    found: Found,
    log_evidence: Array2<f64>,
}

/// What pass 1 found, on the device that further passes run on.
#[derive(Debug)]
enum Found {
    Cpu(Vec<Evidence>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<CudaEngine>, Vec<DeviceEvidence>),
}

/// What a posterior says about images.
#[derive(Debug)]
pub struct Statistics {
    /// The entropy of the weights in nats, `[query, window]`.
    pub entropy: Array2<f64>,
    /// The heaviest images, heaviest first, `[query, window, place]`; -1 where no further image has a weight that counts.
    pub image: Array3<i64>,
    /// Which view of the image is meant, 0 as it is stored; 1 mirrored, where mirror images count.
    pub view: Array3<u32>,
    /// Their weights; zero where there is no image.
    pub weight: Array3<f64>,
}

impl Statistics {
    /// Of no image.
    pub(crate) fn new(queries: usize, count: usize, top: usize) -> Self {
        Self {
            entropy: Array2::zeros((queries, count)),
            image: Array3::from_elem((queries, count, top), -1),
            view: Array3::zeros((queries, count, top)),
            weight: Array3::zeros((queries, count, top)),
        }
    }

    /// Writes what was found for a query among the images that count.
    pub(crate) fn fill(&mut self, atoms: &Atoms, query: usize, found: &ProbeStatistics) {
        for (k, entropy) in found.entropy.iter().enumerate() {
            self.entropy[[query, k]] = (entropy * std::f64::consts::LN_2).max(0.0);
            for (place, atom) in found.heaviest.of(k).iter().flatten().enumerate() {
                self.image[[query, k, place]] = i64::try_from(atoms.image_at(atom.position)).unwrap_or(i64::MAX);
                self.view[[query, k, place]] = atom.view;
                self.weight[[query, k, place]] = atom.log.exp2();
            }
        }
    }
}

impl Posteriors {
    /// Pass 1 on the CPU, see [`crate::Engine::evidence`].
    pub(crate) fn on_cpu(
        bank: &Bank<'_>,
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Self> {
        let (mut evidence, mut log_evidence) = (Vec::with_capacity(queries.len()), Vec::with_capacity(queries.len()));
        Call::new(bank, components, queries, flips).run(&FindEvidence, monitor, |_, (found, logs)| {
            evidence.push(found);
            log_evidence.push(logs);
        })?;
        Ok(Self::new(components, queries, flips, Found::Cpu(evidence), &log_evidence))
    }

    /// Pass 1 on a GPU, where all that is asked later is computed too.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(
        engine: &Arc<CudaEngine>,
        question: &Question<'_, '_>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Self> {
        let (evidence, log_evidence): (_, Vec<_>) = engine.evidence(question, monitor)?.into_iter().unzip();
        let found = Found::Cuda(Arc::clone(engine), evidence);
        Ok(Self::new(question.components, question.queries, question.flips, found, &log_evidence))
    }

    fn new(
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        found: Found,
        log_evidence: &[Vec<f64>],
    ) -> Self {
        let z = queries.images();
        let log_evidence =
            Array2::from_shape_fn((queries.len(), components.count()), |(query, k)| log_evidence[query][k]);
        let (components, sigma, atoms) = (components.clone(), queries.sigma().to_vec(), queries.atoms().clone());
        Self { components, z, sigma, atoms, flips, found, log_evidence }
    }

    /// The logarithm of the sum over images of `exp(log prior - |z - x_n|^2 / (2 sigma^2))` on every window, in nats,
    /// `[query, window]`.
    #[must_use]
    pub fn log_evidence(&self) -> &Array2<f64> {
        &self.log_evidence
    }

    /// The composite `[query, channel, row, column]`, as [`crate::Engine::composite`] computes it.
    ///
    /// Errors: those of that function. `bank` is the one these posteriors were found in, here and below.
    pub fn composite(&self, bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<Array4<f32>> {
        let (cover, mut denoised) = (self.components.cover(), Array4::zeros(self.z.raw_dim()));
        self.composites(bank, monitor, |query, sums| {
            finish(bank, &cover, sums, denoised.slice_mut(s![query, .., .., ..]));
        })?;
        Ok(denoised)
    }

    /// The sums of the composite of every query.
    fn composites(
        &self,
        bank: &Bank<'_>,
        monitor: &mut Monitor<'_>,
        mut consume: impl FnMut(usize, &MirrorSums),
    ) -> Result<()> {
        match &self.found {
            Found::Cpu(evidence) => {
                self.run(bank, evidence, Composite, Memory::default(), monitor, |query, sums| consume(query, &sums))
            }
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => {
                let none = Array4::zeros((0, self.sigma.len(), 1, 1));
                self.ask(bank, |question| {
                    engine.derivatives(question, evidence, none.view(), monitor, |query, found| {
                        consume(query, &found.composite);
                    })
                })
            }
        }
    }

    /// Entropies and the `top` heaviest images.
    pub fn statistics(&self, bank: &Bank<'_>, top: usize, monitor: &mut Monitor<'_>) -> Result<Statistics> {
        let (queries, count) = self.log_evidence.dim();
        let top_at_most = top.min(self.count_atoms(bank));
        check_available(top.saturating_mul(24).saturating_add(8).saturating_mul(queries * count))?;
        let mut all = Statistics::new(queries, count, top);
        let wanted = Wanted { top: top_at_most, attribution: false };
        let of_query = count * (8 + 32 * top_at_most);
        let memory = Memory { per_query: 2 * of_query, per_probe: 2 * of_query, results: of_query * queries };
        self.all_statistics(bank, wanted, memory, monitor, |query, found| all.fill(&self.atoms, query, &found))?;
        Ok(all)
    }

    /// The statistics of every query, on either device.
    fn all_statistics(
        &self,
        bank: &Bank<'_>,
        wanted: Wanted,
        memory: Memory,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, ProbeStatistics),
    ) -> Result<()> {
        match &self.found {
            Found::Cpu(evidence) => self.run(bank, evidence, StatisticsPass { wanted }, memory, monitor, consume),
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => {
                self.ask(bank, |question| engine.statistics(question, evidence, wanted, monitor, consume))
            }
        }
    }

    /// The sum of the weights of every image, all of its views together, over the windows, `[query, image]`.
    pub fn attribution(&self, bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<Array2<f64>> {
        let of_query = size_of::<f64>() * bank.len();
        check_available(of_query.saturating_mul(self.sigma.len()))?;
        let mut all = Array2::zeros((self.sigma.len(), bank.len()));
        let wanted = Wanted { top: 0, attribution: true };
        let memory = Memory { per_query: 2 * of_query, ..Memory::default() };
        self.all_statistics(bank, wanted, memory, monitor, |query, found| {
            for (position, sum) in found.attribution.iter().enumerate() {
                all[[query, self.atoms.image_at(position)]] = *sum;
            }
            for &position in self.atoms.left_out_of(query) {
                all[[query, self.atoms.image_at(position as usize)]] = 0.0;
            }
        })?;
        Ok(all)
    }

    /// The posterior variances: per pixel `[query, channel, row, column]` the mean over the windows at it, and per window that of
    /// its middle pixel ([`Components::middle`]), `[query, window, channel]`; in squares of the units of the images.
    pub fn variance(&self, bank: &Bank<'_>, monitor: &mut Monitor<'_>) -> Result<(Array4<f64>, Array3<f64>)> {
        let (unit, width) = (bank.unit().powi(2), self.components.width());
        let cover = self.components.cover();
        let (queries, count) = self.log_evidence.dim();
        let mut pixels = Array4::zeros(self.z.raw_dim());
        let mut middles = Array3::zeros((queries, count, bank.image_shape()[0]));
        let write = |query: usize, QueryVariance { sums, middle }: QueryVariance| {
            let mut of_query = pixels.index_axis_mut(Axis(0), query);
            for (((_, y, x), sum), out) in merged(&sums).indexed_iter().zip(&mut of_query) {
                *out = (sum / f64::from(cover[y * width + x]) / unit).max(0.0);
            }
            middles.slice_mut(s![query, .., ..]).iter_mut().zip(middle).for_each(|(out, value)| *out = value / unit);
        };
        match &self.found {
            Found::Cpu(evidence) => {
                let memory = Variance::memory(&self.components, bank.image_shape()[0], bank.image_len(), queries);
                self.run(bank, evidence, Variance, memory, monitor, write)?;
            }
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => {
                self.ask(bank, |question| engine.variances(question, evidence, monitor, write))?;
            }
        }
        Ok((pixels, middles))
    }

    /// The derivatives J v of the composite along `directions` `[direction, query, channel, row, column]`, with J the Jacobian
    /// of the composite at each query's z; or those of its transpose.
    ///
    /// Errors: directions of another shape, or with numbers that are not finite.
    pub fn jvp(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array5<f32>> {
        Ok(self.composite_and_jvp(bank, directions, transposed, monitor)?.1)
    }

    /// The composite and its derivatives.
    pub(crate) fn composite_and_jvp(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<(Array4<f32>, Array5<f32>)> {
        let (cover, mut denoised) = (self.components.cover(), Array4::zeros(self.z.raw_dim()));
        let mut found = Array5::zeros(directions.raw_dim());
        let parts = parts_of(&directions);
        for (i, part) in (0..).zip(&parts) {
            let monitor = &mut part_of_monitor(monitor, i, parts.len() as u64);
            let part = Slice::from(part.clone());
            let values = directions.slice_axis(Axis(0), part);
            let directions = Directions::new(bank, &self.components, &self.sigma, values, transposed)?;
            let mut found = found.slice_axis_mut(Axis(0), part);
            self.derivatives(bank, directions.values(), monitor, |query, of_query| {
                finish(bank, &cover, &of_query.composite, denoised.slice_mut(s![query, .., .., ..]));
                directions.finish(query, &of_query, found.index_axis_mut(Axis(1), query));
            })?;
        }
        Ok((denoised, found))
    }

    /// The sums of composites and of their derivatives along `directions` `[direction, query, channel, pixel]`.
    fn derivatives(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView4<'_, f64>,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, QueryDerivative),
    ) -> Result<()> {
        match &self.found {
            Found::Cpu(evidence) => {
                let pass = Derivative { directions };
                let memory = pass.memory(&self.components, bank.image_len(), self.sigma.len());
                self.run(bank, evidence, pass, memory, monitor, consume)
            }
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => {
                self.ask(bank, |question| engine.derivatives(question, evidence, directions, monitor, consume))
            }
        }
    }

    /// How many images count, with their mirror images.
    fn count_atoms(&self, bank: &Bank<'_>) -> usize {
        self.atoms.images().map_or(bank.len(), <[u32]>::len) * if self.flips { 2 } else { 1 }
    }

    /// Asks a GPU about all queries.
    #[cfg(feature = "cuda")]
    fn ask(&self, bank: &Bank<'_>, asks: impl FnOnce(&Question<'_, '_>) -> Result<()>) -> Result<()> {
        let queries = &Queries::new(bank, self.z.view(), &self.sigma)?.among(&self.atoms);
        asks(&Question { bank, components: &self.components, queries, flips: self.flips })
    }

    /// Runs a pass over all queries on the CPU.
    fn run<T: Pass>(
        &self,
        bank: &Bank<'_>,
        evidence: &[Evidence],
        pass: T,
        memory: Memory,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, T::Found),
    ) -> Result<()> {
        let queries = Queries::new(bank, self.z.view(), &self.sigma)?.among(&self.atoms);
        let work = OnEvidence { pass, evidence, memory };
        Call::new(bank, &self.components, &queries, self.flips).run(&work, monitor, consume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Pixels};
    use ndarray::{Array, Dimension, concatenate};

    /// Images of bytes, of any shape.
    fn images(count: usize) -> Array4<u8> {
        Array4::from_shape_fn((count, 2, 5, 6), |(n, c, y, x)| ((n * 97 + c * 41 + y * 29 + x * 13) * 7919 % 256) as u8)
    }

    /// Some numbers in [-1, 1].
    fn numbers<D: Dimension>(shape: impl ndarray::ShapeBuilder<Dim = D>, seed: u32) -> Array<f64, D> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        Array::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 23) - 1.0
        })
    }

    /// Every kind of windows, and noise levels of every route.
    fn problems() -> Vec<(Components, f64, bool)> {
        let masks = ndarray::Array3::from_shape_fn((4, 5, 6), |(k, y, x)| (y * 6 + x) % 4 <= k);
        let kinds = [
            Components::full(5, 6).unwrap(),
            Components::square(5, 6, 3).unwrap(),
            Components::square(5, 6, 5).unwrap(),
            Components::masks(masks.view()).unwrap(),
        ];
        let levels = [0.05, 0.3, 1.5];
        let every =
            |windows: Components| levels.map(|sigma| [false, true].map(|flips| (windows.clone(), sigma, flips)));
        kinds.into_iter().flat_map(every).flatten().collect()
    }

    #[allow(clippy::unnecessary_wraps, reason = "a monitor may stop the call")]
    fn quiet(_: u64, _: u64) -> Result<()> {
        Ok(())
    }

    /// Noisy versions of the first two images.
    fn noisy(bank: &Bank<'_>, sigma: f64) -> Array4<f64> {
        let Pixels::U8(pixels) = bank.pixels() else { unreachable!("bytes") };
        let clean = |i: usize| f64::from(pixels[i]) / 127.5 - 1.0;
        let mut z = numbers((2, 2, 5, 6), 3) * sigma;
        z.iter_mut().enumerate().for_each(|(i, z)| *z += clean(i));
        z
    }

    #[test]
    fn weights_sum_to_one_and_entropies_are_theirs() {
        let images = images(40);
        let bank = Bank::from_u8(images.view()).unwrap();
        for (windows, sigma, flips) in problems() {
            let (z, levels) = (noisy(&bank, sigma), [sigma; 2]);
            let queries = Queries::new(&bank, z.view(), &levels).unwrap();
            let found = Engine::Cpu.evidence(&bank, &windows, &queries, flips, &mut quiet).unwrap();
            let statistics = found.statistics(&bank, 100, &mut quiet).unwrap();
            let attribution = found.attribution(&bank, &mut quiet).unwrap();
            for ((query, k), entropy) in statistics.entropy.indexed_iter() {
                let weights = statistics.weight.slice(s![query, k, ..]);
                assert!((weights.sum() - 1.0).abs() < 2e-6, "{} at sigma {sigma}", weights.sum());
                assert!(weights.windows(2).into_iter().all(|pair| pair[0] >= pair[1]));
                let exact: f64 = weights.iter().filter(|&&w| w > 0.0).map(|w| -w * w.ln()).sum();
                assert!((entropy - exact).abs() < 1e-5 * (1.0 + exact), "{entropy} is not {exact}");
            }
            for of_query in attribution.outer_iter() {
                assert!((of_query.sum() / windows.count() as f64 - 1.0).abs() < 2e-6);
            }
        }
    }

    #[test]
    fn images_that_do_not_count_are_as_if_they_were_not_there() {
        let all = images(40);
        let kept = concatenate![Axis(0), all.slice(s![1..7, .., .., ..]), all.slice(s![9.., .., .., ..])];
        let (bank, rest) = (Bank::from_u8(all.view()).unwrap(), Bank::from_u8(kept.view()).unwrap());
        let base: Vec<u32> = (1..7).chain(9..40).collect();
        let chosen = Atoms::new(&bank, 2, Some(base), Vec::new()).unwrap();
        let left_out = Atoms::new(&bank, 2, None, vec![vec![0, 7, 8]; 2]).unwrap();
        for (windows, sigma, flips) in problems() {
            let (z, levels) = (noisy(&bank, sigma), [sigma; 2]);
            let of_rest = Queries::new(&rest, z.view(), &levels).unwrap();
            let expected = Engine::Cpu.composite(&rest, &windows, &of_rest, flips, &mut quiet).unwrap();
            for atoms in [&chosen, &left_out] {
                let queries = Queries::new(&bank, z.view(), &levels).unwrap().among(atoms);
                let denoised = Engine::Cpu.composite(&bank, &windows, &queries, flips, &mut quiet).unwrap();
                let worst = (&denoised - &expected).iter().fold(0.0_f32, |worst, d| worst.max(d.abs()));
                assert!(worst < 2e-6, "{worst} at sigma {sigma}");
                let found = Engine::Cpu.evidence(&bank, &windows, &queries, flips, &mut quiet).unwrap();
                let attribution = found.attribution(&bank, &mut quiet).unwrap();
                assert!([0, 7, 8].iter().all(|&n| attribution.column(n).iter().all(|&sum| sum == 0.0)));
            }
        }
    }

    #[test]
    fn equal_priors_change_nothing_but_the_evidence() {
        let images = images(40);
        let plain = Bank::from_u8(images.view()).unwrap();
        let log_prior = [2.5; 40];
        let bank = plain.with_log_prior(&log_prior).unwrap();
        for (windows, sigma, flips) in problems() {
            let (z, levels) = (noisy(&plain, sigma), [sigma; 2]);
            let evidence = |bank: &Bank<'_>| {
                let queries = Queries::new(bank, z.view(), &levels).unwrap();
                Engine::Cpu.evidence(bank, &windows, &queries, flips, &mut quiet).unwrap()
            };
            let (of_plain, of_bank) = (evidence(&plain), evidence(&bank));
            let expected = of_plain.composite(&plain, &mut quiet).unwrap();
            let denoised = of_bank.composite(&bank, &mut quiet).unwrap();
            assert!((&denoised - &expected).iter().all(|d| d.abs() < 1e-6), "at sigma {sigma}");
            let raised = of_bank.log_evidence() - of_plain.log_evidence();
            let tolerance = 1e-5 * of_plain.log_evidence().iter().fold(1.0_f64, |most, log| most.max(log.abs()));
            assert!(raised.iter().all(|by| (by - 2.5).abs() < tolerance), "{raised} at sigma {sigma}");
        }
    }

    #[test]
    fn the_transpose_is_that_of_the_jacobian_and_variances_are_its_diagonal() {
        let images = images(40);
        let bank = Bank::from_u8(images.view()).unwrap();
        for (windows, sigma, flips) in problems() {
            let (z, levels) = (noisy(&bank, sigma), [sigma; 2]);
            let queries = Queries::new(&bank, z.view(), &levels).unwrap();
            let found = Engine::Cpu.evidence(&bank, &windows, &queries, flips, &mut quiet).unwrap();
            let (v, u) = (numbers((1, 2, 2, 5, 6), 5), numbers((1, 2, 2, 5, 6), 6));
            let jv = found.jvp(&bank, v.view(), false, &mut quiet).unwrap().mapv(f64::from);
            let ju = found.jvp(&bank, u.view(), true, &mut quiet).unwrap().mapv(f64::from);
            let (a, b) = ((&u * &jv).sum(), (&ju * &v).sum());
            assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} is not {b} at sigma {sigma}");
            let (variance, middles) = found.variance(&bank, &mut quiet).unwrap();
            for p in [0, 8, 29] {
                let mut unit = Array5::zeros((1, 2, 2, 5, 6));
                unit.slice_mut(s![0, .., 1, p / 6, p % 6]).fill(1.0);
                let column = found.jvp(&bank, unit.view(), false, &mut quiet).unwrap();
                for query in 0..2 {
                    let of_diagonal = sigma.powi(2) * f64::from(column[[0, query, 1, p / 6, p % 6]]);
                    let of_pixel = variance[[query, 1, p / 6, p % 6]];
                    assert!(
                        (of_pixel - of_diagonal).abs() < 2e-5 * sigma.powi(2).max(0.05),
                        "{of_pixel}, {of_diagonal}"
                    );
                }
            }
            if windows.count() == 1 {
                assert_eq!(middles[[1, 0, 0]], variance[[1, 0, 2, 3]]);
            }
        }
    }
}
