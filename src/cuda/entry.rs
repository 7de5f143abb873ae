//! `CudaEngine`: a data set on a GPU, and the denoising of queries on the host or on that GPU.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array4, ArrayView4};

use super::bank::DeviceBank;
use super::batches;
use super::call::{Call, DeviceQueries};
use super::components::ComponentCopies;
use super::context::Stream;
use super::device::Device;
use super::memory::{Memory, Plain};
use super::penalties::Priors;
use super::queue::LaunchQueue;
use crate::bank::Bank;
use crate::components::Components;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::query::{NoisyImages, Queries};
use crate::sources::Sources;

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
            let (z, z_is_f64) = match queries.z() {
                NoisyImages::F32(z) => (upload(&stream, z)?, false),
                NoisyImages::F64(z) => (upload(&stream, z)?, true),
            };
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
        let components = self.components.get(&self.device, components, self.bank.channels())?;
        let chosen = match queries.atoms.images() {
            Some(images) => Some(DeviceBank::of_chosen(&self.bank, bank, &stream, images)?),
            None => None,
        };
        let priors = Priors::new(&Sources::new(bank, queries.atoms), &stream)?;
        let (host_bank, bank) = (bank, chosen.as_ref().unwrap_or(&self.bank));
        let call = Call { host_bank, bank, components: &components, queries, priors, flips };
        // Two passes over every image that counts, for every probe.
        let work = 2 * bank.len() * queries.sigma.len() * call.mirrors();
        let mut queue = LaunchQueue::new(stream, work as u64, monitor);
        batches::run(&call, &mut queue)?;
        Ok(queue)
    }
}

/// A contiguous copy of z on the device.
fn upload<T: Plain>(stream: &Stream, z: ArrayView4<'_, T>) -> Result<Memory> {
    Memory::copy_of(stream, z.as_standard_layout().as_slice().unwrap_or(&[]), "the queries")
}
