//! `CudaEngine`: a data set on a GPU, the denoising of queries on the host or on that GPU, and their posteriors.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array4, ArrayView3, ArrayView4, Axis};

use super::bank::DeviceBank;
use super::batch::{Batch, logit_scale};
use super::call::{Call, DeviceQueries};
use super::components::ComponentCopies;
use super::context::Stream;
use super::device::Device;
use super::evidence::{DeviceEvidence, Known};
use super::far::{FarPixel, FarValues};
use super::memory::{Memory, Plain};
use super::penalties::Priors;
use super::queue::LaunchQueue;
use super::{batches, derivative, evidence, far, planes, statistics, variance};
use crate::bank::Bank;
use crate::components::Components;
use crate::error::Result;
use crate::found::{QueryDerivative, QueryVariance};
use crate::heaviest::{ProbeStatistics, Wanted};
use crate::monitor::Monitor;
use crate::query::{NoisyImages, Queries};
use crate::sources::Sources;

/// Of which queries something is asked, on which windows.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a, 'q> {
    pub(crate) bank: &'a Bank<'a>,
    pub(crate) components: &'a Components,
    pub(crate) queries: &'a Queries<'q>,
    /// Whether every image also counts flipped left to right.
    pub(crate) flips: bool,
}

/// The images of one bank on a GPU. [`crate::Engine`] checks what the calls are given.
pub struct CudaEngine {
    device: Arc<Device>,
    bank: Arc<DeviceBank>,
    components: ComponentCopies,
}

impl std::fmt::Debug for CudaEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (info, shape) = (self.device.info(), self.bank.shape);
        f.debug_struct("CudaEngine").field("device", info).field("images", &shape).finish_non_exhaustive()
    }
}

impl CudaEngine {
    /// See [`crate::Engine::cuda`].
    pub(crate) fn new(bank: &Bank<'_>, ordinal: usize, cache: Option<PathBuf>) -> Result<Self> {
        let device = Device::open(ordinal, cache)?;
        let bank = Arc::new(DeviceBank::new(Arc::clone(&device), bank)?);
        Ok(Self { device, bank, components: ComponentCopies::default() })
    }

    /// Number and name of the GPU.
    pub(crate) fn device_name(&self) -> String {
        let info = self.device.info();
        format!("GPU {}: {}", info.ordinal, info.name)
    }

    /// Whether all images stay on the device; otherwise they are copied again for every pass.
    pub(crate) fn is_resident(&self) -> bool {
        self.bank.is_resident()
    }

    /// See [`crate::Engine::composite`].
    pub(crate) fn composite(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f32>> {
        self.bank.check_same(bank)?;
        let mut denoised = Array4::<f32>::zeros(queries.z().shape());
        if let Some(values) = denoised.as_slice_mut().filter(|values| !values.is_empty()) {
            let stream = Stream::default_of(&self.device.context);
            let (z, z_is_f64) = upload(&stream, queries.z())?;
            let out = Memory::new(&stream, size_of_val(values), "the denoised images")?;
            let (z, sigma, atoms) = (z.address(), queries.sigma(), queries.atoms());
            let queries = DeviceQueries { z, z_is_f64, out: out.address(), out_is_f64: false, sigma, atoms };
            let mut queue = self.queue_all(bank, components, queries, flips, stream, monitor)?;
            queue.wait()?;
            queue.finish()?;
            out.read(values, "the denoised images")?;
        }
        Ok(denoised)
    }

    /// See [`crate::Engine::composite_on_device`].
    ///
    /// # Safety
    /// As for [`crate::Engine::composite_on_device`].
    pub(crate) unsafe fn composite_on_device(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: DeviceQueries<'_>,
        flips: bool,
        stream: usize,
        monitor: &mut Monitor<'_>,
    ) -> Result<()> {
        self.bank.check_same(bank)?;
        if queries.sigma.is_empty() {
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        let stream = unsafe { Stream::from_handle(&self.device.context, stream) };
        self.queue_all(bank, components, queries, flips, stream, monitor)?.finish()
    }

    /// See [`crate::Engine::evidence`]. The evidence of every query, and the logarithms of the sums of weights of its
    /// windows, in nats.
    pub(crate) fn evidence(
        &self,
        question: &Question<'_, '_>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Vec<(DeviceEvidence, Vec<f64>)>> {
        let of_query = |call: &Call<'_>| evidence::bytes_per_query(call);
        let Question { bank, queries, flips, .. } = *question;
        self.bank.check_same(bank)?;
        let far = |query| far::of_query(bank, &self.bank, queries, query, flips);
        let far: Vec<Vec<FarPixel>> = (0..queries.len()).map(far).collect();
        let far: Vec<&[FarPixel]> = far.iter().map(Vec::as_slice).collect();
        let mut found = Vec::with_capacity(queries.len());
        self.on_planes(question, &far, 1, false, of_query, monitor, |call, queue, batch, rows| {
            let far: Vec<&[FarPixel]> = rows.iter().map(|&row| far[row]).collect();
            found.extend(evidence::find(call, queue, batch, &far)?);
            Ok(())
        })?;
        let with_logs = |(query, evidence): (usize, DeviceEvidence)| {
            let logs = self.log_evidence(question, query, &evidence);
            (evidence, logs)
        };
        Ok(found.into_iter().enumerate().map(with_logs).collect())
    }

    /// The statistics of every query, given its evidence.
    pub(crate) fn statistics(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        wanted: Wanted,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, ProbeStatistics),
    ) -> Result<()> {
        let of_query = |call: &Call<'_>| statistics::bytes_per_query(call, wanted);
        let ask = |known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>| statistics::run(known, queue, wanted);
        self.on_evidence(question, evidence, (1, false), of_query, monitor, ask, consume)
    }

    /// The variances of every query, given its evidence.
    pub(crate) fn variances(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, QueryVariance),
    ) -> Result<()> {
        let passes = variance::parts_of(question.components).len();
        self.on_evidence(
            question,
            evidence,
            (passes, false),
            variance::bytes_per_query,
            monitor,
            variance::run,
            consume,
        )
    }

    /// The composite of every query, given its evidence, and derivatives along `directions` `[direction, query, channel,
    /// pixel]`.
    pub(crate) fn derivatives(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        directions: ArrayView4<'_, f64>,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, QueryDerivative),
    ) -> Result<()> {
        let count = directions.len_of(Axis(0));
        let of_query = |call: &Call<'_>| derivative::bytes_per_query(call, count);
        let passes = (derivative::passes(count), count > 0);
        let ask = |known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>| derivative::run(known, queue, directions);
        self.on_evidence(question, evidence, passes, of_query, monitor, ask, consume)
    }

    /// The mean products of images less z and directions of every query, `[direction][window]`, given its evidence.
    pub(crate) fn mean_products(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        directions: ArrayView4<'_, f64>,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, Vec<Vec<f64>>),
    ) -> Result<()> {
        let of_query = |call: &Call<'_>| derivative::bytes_per_query(call, directions.len_of(Axis(0)));
        let ask =
            |known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>| derivative::mean_products(known, queue, directions);
        self.on_evidence(question, evidence, (1, true), of_query, monitor, ask, consume)
    }

    /// As [`CudaEngine::derivatives`], with the mean products `[direction, query, window]` given.
    pub(crate) fn given_means(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        (directions, means): (ArrayView4<'_, f64>, ArrayView3<'_, f64>),
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, QueryDerivative),
    ) -> Result<()> {
        let of_query = |call: &Call<'_>| derivative::bytes_per_query(call, directions.len_of(Axis(0)));
        let ask = |known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>| {
            derivative::given_means(known, queue, directions, means)
        };
        let passes = (1, !directions.is_empty());
        self.on_evidence(question, evidence, passes, of_query, monitor, ask, consume)
    }

    /// The moments of every query, of pixels less z, as [`crate::found::MomentLayout`] has them.
    pub(crate) fn rank_moments(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, Vec<f64>),
    ) -> Result<()> {
        let passes = (variance::parts_of(question.components).len(), false);
        let (of_query, ask) = (variance::bytes_per_query, variance::rank_moments);
        self.on_evidence(question, evidence, passes, of_query, monitor, ask, consume)
    }

    /// Asks something of all queries, given their evidence. It takes so many passes over all images, with products or without.
    #[allow(clippy::too_many_arguments, reason = "what a question takes")]
    fn on_evidence<T>(
        &self,
        question: &Question<'_, '_>,
        evidence: &[DeviceEvidence],
        (passes, has_products): (usize, bool),
        of_query: impl Fn(&Call<'_>) -> usize,
        monitor: &mut Monitor<'_>,
        ask: impl Fn(&Known<'_>, &mut LaunchQueue<'_, '_>) -> Result<Vec<T>>,
        mut consume: impl FnMut(usize, T),
    ) -> Result<()> {
        let far: Vec<&[FarPixel]> = evidence.iter().map(|evidence| evidence.far.as_slice()).collect();
        self.on_planes(question, &far, passes, has_products, of_query, monitor, |call, queue, batch, rows| {
            let known = Known::new(call, &queue.stream, batch, question.components, rows, evidence)?;
            let found = ask(&known, queue)?;
            rows.iter().zip(found).for_each(|(&row, found)| consume(row, found));
            Ok(())
        })
    }

    /// Runs `work` for all queries, in batches in order whose planes fit into memory, of which each query takes `of_query`
    /// bytes besides. It takes so many passes over all images. `far` are the values of queries that are far from the data.
    #[allow(clippy::too_many_arguments, reason = "what a question takes")]
    fn on_planes(
        &self,
        question: &Question<'_, '_>,
        far: &[&[FarPixel]],
        passes: usize,
        has_products: bool,
        of_query: impl Fn(&Call<'_>) -> usize,
        monitor: &mut Monitor<'_>,
        mut work: impl FnMut(&Call<'_>, &mut LaunchQueue<'_, '_>, &Batch, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let Question { bank, components, queries, flips } = *question;
        self.bank.check_same(bank)?;
        if queries.is_empty() {
            return Ok(());
        }
        let stream = Stream::default_of(&self.device.context);
        let (z, z_is_f64) = upload(&stream, queries.z())?;
        let (z, sigma, atoms) = (z.address(), queries.sigma(), queries.atoms());
        let queries = DeviceQueries { z, z_is_f64, out: 0, out_is_f64: false, sigma, atoms };
        self.with_call(bank, components, queries, flips, &stream, |call| {
            // The images get memory first; what is left decides how many queries make a batch.
            drop(call.bank.on_device(bank, &stream, &(0..1))?);
            let total = passes * call.bank.len() * sigma.len() * call.mirrors();
            let mut queue = LaunchQueue::new(stream.clone(), total as u64, monitor);
            let rows: Vec<usize> = (0..sigma.len()).collect();
            let free = call.bank.device.context.free_memory()?;
            for rows in rows.chunks(planes::queries_per_batch(call, free, of_query(call), has_products)) {
                let far: Vec<&[FarPixel]> = rows.iter().map(|&row| far[row]).collect();
                let far = FarValues::new(call.bank, &stream, &far, flips)?;
                let mut batch = Batch::new(call, &mut queue, planes::REGIME, rows)?;
                batch.probes.far_values = far.address();
                work(call, &mut queue, &batch, rows)?;
            }
            queue.wait()?;
            queue.finish()
        })
    }

    /// The logarithms of the sums of weights of the windows of a query, in nats. Energies of the kernels lack a constant where
    /// values of z are far from the data.
    fn log_evidence(&self, question: &Question<'_, '_>, query: usize, evidence: &DeviceEvidence) -> Vec<f64> {
        let Question { bank, components, queries, .. } = *question;
        let constants = far::constants(components, &evidence.far);
        let logit_scale = logit_scale(queries.sigma()[query], self.bank.units().unit);
        let log_prior = Sources::new(bank, queries.atoms()).log_prior;
        let nats = |(bits, constant): (&f64, f64)| (bits - logit_scale * constant) * std::f64::consts::LN_2 + log_prior;
        evidence.log2_sums.iter().zip(constants).map(nats).collect()
    }

    /// Queues all work of a call.
    fn queue_all<'m, 'a>(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: DeviceQueries<'_>,
        flips: bool,
        stream: Stream,
        monitor: &'m mut Monitor<'a>,
    ) -> Result<LaunchQueue<'m, 'a>> {
        self.with_call(bank, components, queries, flips, &stream.clone(), |call| {
            // Two passes over every image that counts, for every probe.
            let work = 2 * call.bank.len() * queries.sigma.len() * call.mirrors();
            let mut queue = LaunchQueue::new(stream, work as u64, monitor);
            batches::run(call, &mut queue)?;
            Ok(queue)
        })
    }

    /// Runs `work` with what a call needs on the device.
    fn with_call<R>(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: DeviceQueries<'_>,
        flips: bool,
        stream: &Stream,
        work: impl FnOnce(&Call<'_>) -> Result<R>,
    ) -> Result<R> {
        let components = self.components.get(&self.device, components, self.bank.channels())?;
        let chosen = match queries.atoms.images() {
            Some(images) => Some(DeviceBank::of_chosen(&self.bank, bank, stream, images)?),
            None => None,
        };
        let priors = Priors::new(&Sources::new(bank, queries.atoms), stream)?;
        let (host_bank, bank) = (bank, chosen.as_ref().unwrap_or(&self.bank));
        work(&Call { host_bank, bank, components: &components, queries, priors, flips })
    }
}

/// A contiguous copy of z on the device, and whether it is float64.
fn upload(stream: &Stream, z: NoisyImages<'_>) -> Result<(Memory, bool)> {
    match z {
        NoisyImages::F32(z) => Ok((upload_values(stream, z)?, false)),
        NoisyImages::F64(z) => Ok((upload_values(stream, z)?, true)),
    }
}

fn upload_values<T: Plain>(stream: &Stream, z: ArrayView4<'_, T>) -> Result<Memory> {
    Memory::copy_of(stream, z.as_standard_layout().as_slice().unwrap_or(&[]), "the queries")
}
