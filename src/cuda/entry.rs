//! `CudaEngine`: a data set on a GPU, and the denoising of queries on the host or on that GPU.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array4, ArrayView4, Ix4};

use super::bank::DeviceBank;
use super::batches;
use super::call::{Call, DeviceQueries};
use super::components::ComponentCopies;
use super::context::Stream;
use super::device::Device;
use super::memory::Memory;
use super::queue::LaunchQueue;
use crate::bank::Bank;
use crate::composite::{Monitor, check_sigma, check_window_shape, check_z, check_z_shape};
use crate::error::{Error, Result};
use crate::windows::Windows as Components;

/// Noisy images on the host.
#[derive(Debug, Clone, Copy)]
pub enum HostPixels<'a> {
    /// In float32.
    F32(ArrayView4<'a, f32>),
    /// In float64.
    F64(ArrayView4<'a, f64>),
}

impl HostPixels<'_> {
    fn shape(&self) -> Ix4 {
        match self {
            Self::F32(z) => z.raw_dim(),
            Self::F64(z) => z.raw_dim(),
        }
    }

    fn upload(&self, stream: &Stream) -> Result<Memory> {
        match self {
            Self::F32(z) => Memory::copy_of(stream, z.as_standard_layout().as_slice().unwrap_or(&[]), "the queries"),
            Self::F64(z) => Memory::copy_of(stream, z.as_standard_layout().as_slice().unwrap_or(&[]), "the queries"),
        }
    }
}

/// Queries on the host.
#[derive(Debug, Clone, Copy)]
pub struct HostQueries<'a> {
    /// Noisy images, `[batch, channels, height, width]`.
    pub z: HostPixels<'a>,
    /// Noise level per query.
    pub sigma: &'a [f64],
}

/// What a call denoises with: the components of the composite, and whether every image also counts flipped.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// The images the engine was made from.
    pub bank: &'a Bank<'a>,
    /// The windows of the composite.
    pub components: &'a Components,
    /// Tells the components from others, as long as they live.
    pub identity: &'a Arc<()>,
    /// Whether every image also counts flipped left to right.
    pub flips: bool,
}

/// A data set on a GPU.
pub struct CudaEngine {
    device: Arc<Device>,
    bank: DeviceBank,
    components: ComponentCopies,
}

impl std::fmt::Debug for CudaEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (info, shape) = (self.device.info(), self.bank.shape);
        f.debug_struct("CudaEngine").field("device", info).field("images", &shape).finish_non_exhaustive()
    }
}

impl CudaEngine {
    /// The images of `bank` on GPU `ordinal`, to which they are copied when first used. Compiled kernels are kept in the
    /// folder `cache` if there is one.
    pub fn new(ordinal: usize, cache: Option<PathBuf>, bank: &Bank<'_>) -> Result<Self> {
        let device = Device::open(ordinal, cache)?;
        let bank = DeviceBank::new(Arc::clone(&device), bank)?;
        Ok(Self { device, bank, components: ComponentCopies::default() })
    }

    /// Whether all images stay on the device; otherwise they are copied again for every pass.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.bank.is_resident()
    }

    /// Denoises queries on the host, see [`crate::composite()`].
    pub fn denoise(
        &self,
        model: &Model<'_>,
        queries: &HostQueries<'_>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f32>> {
        check_host(model, queries)?;
        let mut denoised = Array4::<f32>::zeros(queries.z.shape());
        if let Some(values) = denoised.as_slice_mut().filter(|values| !values.is_empty()) {
            let stream = Stream::default_of(&self.device.context);
            let z = queries.z.upload(&stream)?;
            let out = Memory::new(&stream, size_of_val(values), "the denoised images")?;
            let queries = DeviceQueries {
                z: z.address(),
                z_is_f64: matches!(queries.z, HostPixels::F64(_)),
                out: out.address(),
                out_is_f64: false,
                sigma: queries.sigma,
            };
            let mut queue = self.run(model, queries, stream, monitor)?;
            queue.wait()?;
            queue.finish()?;
            out.read(values, "the denoised images")?;
        }
        if denoised.iter().all(|v| v.is_finite()) { Ok(denoised) } else { Err(Error::NotFinite) }
    }

    /// Denoises queries on the device, see [`crate::composite()`], and leaves the results there. The work is queued on the
    /// stream of handle `stream` (0 for the default stream); short work is not waited for. z is not checked, as that would
    /// wait: a query with numbers that are not finite, or too large, becomes NaN.
    ///
    /// # Safety
    /// `queries` has addresses on this device, of `sigma.len()` images each; the stream belongs to this device; all of
    /// them stay alive until the queued work is done.
    pub unsafe fn denoise_on_device(
        &self,
        model: &Model<'_>,
        queries: DeviceQueries<'_>,
        stream: usize,
        monitor: &mut Monitor<'_>,
    ) -> Result<()> {
        check_device(model, &queries)?;
        if queries.sigma.is_empty() {
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        let stream = unsafe { Stream::from_handle(&self.device.context, stream) };
        self.run(model, queries, stream, monitor)?.finish()
    }

    /// Queues all work of a call.
    fn run<'m, 'a>(
        &self,
        model: &Model<'_>,
        queries: DeviceQueries<'_>,
        stream: Stream,
        monitor: &'m mut Monitor<'a>,
    ) -> Result<LaunchQueue<'m, 'a>> {
        self.bank.check_same(model.bank)?;
        let components = self.components.get(&self.device, model.components, model.identity)?;
        let (host_bank, flips) = (model.bank, model.flips);
        let call = Call { host_bank, bank: &self.bank, components: &components, queries, flips };
        let passes = 2;
        let work = passes * call.bank.len() * queries.sigma.len() * call.mirrors();
        let mut queue = LaunchQueue::new(stream, work as u64, monitor);
        batches::run(&call, &mut queue)?;
        Ok(queue)
    }
}

fn check_host(model: &Model<'_>, HostQueries { z, sigma }: &HostQueries<'_>) -> Result<()> {
    match z {
        HostPixels::F32(z) => check_z_shape(model.bank, z, sigma)?,
        HostPixels::F64(z) => check_z_shape(model.bank, z, sigma)?,
    }
    check_window_shape(model.bank, model.components.height(), model.components.width())?;
    check_sigma(sigma)?;
    match z {
        HostPixels::F32(z) => check_z(z),
        HostPixels::F64(z) => check_z(z),
    }
}

fn check_device(model: &Model<'_>, queries: &DeviceQueries<'_>) -> Result<()> {
    check_window_shape(model.bank, model.components.height(), model.components.width())?;
    check_sigma(queries.sigma)
}
