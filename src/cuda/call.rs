//! A call: its queries in batches that fit the device, each batch through the passes its windows and noise levels ask for.

use ndarray::{Array4, ArrayView4};

use super::bank::{DeviceBank, check_same};
use super::batch::{Batch, Form};
use super::device::Source;
use super::driver::{Kernel, Memory, Stream};
use super::pace::Pace;
use super::windows::{DeviceKind, DeviceWindows};
use super::{full, windowed};
use crate::bank::Bank;
use crate::composite::{Monitor, check_sigma, check_window_shape, check_z, check_z_shape};
use crate::error::{Error, Result};

/// Most queries in a batch: enough to keep a large GPU busy, few enough for their states.
const QUERIES: usize = 64;

/// Pixels of images times probes in one step: some tenths of a second on a large GPU.
const STEP: usize = 1 << 37;

/// Where the queries of a call and their results are on the device.
#[derive(Debug, Clone, Copy)]
pub struct Queries {
    /// Address of z, `[batch, channels, height, width]`, contiguous.
    pub z: u64,
    /// Whether z is float64; else it is float32.
    pub z_wide: bool,
    /// Address of the denoised images, of the same shape.
    pub out: u64,
    /// Whether they are float64; else they are float32.
    pub out_wide: bool,
}

/// Everything the parts of a call share.
pub(super) struct Call<'a> {
    pub(super) bank: &'a Bank<'a>,
    pub(super) device_bank: &'a DeviceBank,
    pub(super) windows: &'a DeviceWindows,
    pub(super) queries: Queries,
    pub(super) sigma: &'a [f64],
    flips: bool,
}

impl Call<'_> {
    /// Probes a query.
    pub(super) fn views(&self) -> usize {
        if self.flips { 2 } else { 1 }
    }

    pub(super) fn kernel(&self, source: Source, name: &str) -> Result<Kernel> {
        self.device_bank.device.kernel(source, self.device_bank.pixels, name)
    }

    /// Most images of a step.
    pub(super) fn images_a_step(&self, probes: usize) -> usize {
        STEP / (probes * self.device_bank.plane())
    }

    fn run(&self, pace: &mut Pace<'_, '_>) -> Result<()> {
        // The images are the first to get memory; what is left decides how many queries go together.
        drop(self.device_bank.on_device(self.bank, &pace.stream, &(0..1))?);
        let free = self.device_bank.device.context.free_memory()?;
        for form in Form::ALL {
            let rows: Vec<usize> =
                (0..self.sigma.len()).filter(|&i| Form::of(self.sigma[i], self.device_bank.reach) == form).collect();
            for rows in rows.chunks(self.at_once(form, free)) {
                let batch = Batch::new(self, pace, form, rows)?;
                match self.windows.kind {
                    DeviceKind::Full => full::run(self, pace, &batch)?,
                    DeviceKind::Square(_) | DeviceKind::Masks(_) => windowed::run(self, pace, &batch)?,
                }
                batch.finish(self, pace)?;
                pace.step(0)?;
            }
        }
        Ok(())
    }

    /// Queries whose working memory fits into `free` bytes, with some room for others.
    fn at_once(&self, form: Form, free: usize) -> usize {
        let own = match self.windows.kind {
            DeviceKind::Full => full::bytes_per_query(self),
            DeviceKind::Square(_) | DeviceKind::Masks(_) => windowed::bytes_per_query(self),
        };
        (free / 4 * 3 / (own + Batch::bytes_per_query(self, form))).clamp(1, QUERIES)
    }
}

/// Denoises queries that lie on the device and leaves the results there, see [`crate::composite()`]. The work is queued on
/// the stream behind `stream` (0 for the default stream), and this returns before it is done where it is short. Nothing is
/// waited for in order to look at z: a query with numbers that are not finite, or too large, becomes NaN.
///
/// # Safety
/// `queries` are addresses on the device of `device_bank`, with `sigma.len()` images each; the stream belongs to that
/// device; all stay alive until the stream has got there.
#[allow(clippy::too_many_arguments, reason = "the arguments of a composite, and where they are")]
pub unsafe fn composite_on_device(
    bank: &Bank<'_>,
    device_bank: &DeviceBank,
    windows: &DeviceWindows,
    queries: Queries,
    sigma: &[f64],
    flips: bool,
    stream: usize,
    monitor: &mut Monitor<'_>,
) -> Result<()> {
    // SAFETY: (1) by the caller's promise.
    let stream = unsafe { Stream::from_handle(&device_bank.device.context, stream) };
    run(bank, device_bank, windows, queries, sigma, flips, stream, false, monitor)
}

/// Queries on the host, in either precision.
#[derive(Debug, Clone, Copy)]
pub enum HostQueries<'a> {
    /// In float32.
    F32(ArrayView4<'a, f32>),
    /// In float64.
    F64(ArrayView4<'a, f64>),
}

/// Denoises `z` on a device, see [`crate::composite()`]; the arguments and the result are on the host.
pub fn composite(
    bank: &Bank<'_>,
    device_bank: &DeviceBank,
    windows: &DeviceWindows,
    z: HostQueries<'_>,
    sigma: &[f64],
    flips: bool,
    monitor: &mut Monitor<'_>,
) -> Result<Array4<f32>> {
    let stream = Stream::default_of(&device_bank.device.context);
    let what = "the queries";
    let (shape, given) = match z {
        HostQueries::F32(z) => {
            check_queries(bank, &z, sigma)?;
            let values = z.as_standard_layout();
            (z.raw_dim(), Memory::copy_of(&stream, values.as_slice().unwrap_or(&[]), what)?)
        }
        HostQueries::F64(z) => {
            check_queries(bank, &z, sigma)?;
            let values = z.as_standard_layout();
            (z.raw_dim(), Memory::copy_of(&stream, values.as_slice().unwrap_or(&[]), what)?)
        }
    };
    let mut denoised = Array4::<f32>::zeros(shape);
    let z_wide = matches!(z, HostQueries::F64(_));
    if let Some(values) = denoised.as_slice_mut().filter(|values| !values.is_empty()) {
        let out = Memory::new(&stream, size_of_val(values), "the denoised images")?;
        let queries = Queries { z: given.address(), z_wide, out: out.address(), out_wide: false };
        run(bank, device_bank, windows, queries, sigma, flips, stream, true, monitor)?;
        out.read(values, "the denoised images")?;
    }
    if denoised.iter().all(|v| v.is_finite()) { Ok(denoised) } else { Err(Error::NotFinite) }
}

fn check_queries<T: Copy + Into<f64>>(bank: &Bank<'_>, z: &ArrayView4<'_, T>, sigma: &[f64]) -> Result<()> {
    check_z_shape(bank, z, sigma)?;
    check_sigma(sigma)?;
    check_z(z)
}

#[allow(clippy::too_many_arguments, reason = "the arguments of a composite, and where they are")]
fn run(
    bank: &Bank<'_>,
    device_bank: &DeviceBank,
    windows: &DeviceWindows,
    queries: Queries,
    sigma: &[f64],
    flips: bool,
    stream: Stream,
    wait: bool,
    monitor: &mut Monitor<'_>,
) -> Result<()> {
    check_same(device_bank, bank)?;
    check_window_shape(bank, windows.height, windows.width)?;
    check_sigma(sigma)?;
    if sigma.is_empty() {
        return Ok(());
    }
    let call = Call { bank, device_bank, windows, queries, sigma, flips };
    let total = 2 * bank.len() * sigma.len() * call.views();
    let mut pace = Pace::new(stream, total as u64, monitor);
    call.run(&mut pace)?;
    if wait {
        pace.wait()?;
    }
    pace.end()
}
