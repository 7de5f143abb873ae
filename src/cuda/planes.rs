//! `Planes`: energies, weights and their sums of all windows, in float64, for a slice of the images at a time.
//!
//! This is the way of everything that a posterior is asked besides the composite. It moves more memory than the fused passes
//! of a composite, and in return every question is a few short kernels, on any windows.

use super::batch::Batch;
use super::call::Call;
use super::components::DeviceKind;
use super::context::Stream;
use super::far::FarValues;
use super::layout::{Address, Extent, Images, KernelArg, MirroredMasks, kernel_args};
use super::memory::Memory;
use super::module::{Grid, Kernel};
use super::queue::LaunchQueue;
use super::sources::KernelSource;
use super::upload::GROUP_LEN;
use crate::error::Result;
use crate::regime::{EnergyForm, Regime};

/// The regime of batches whose energies lie in planes: the direct form, in float64.
pub(super) const REGIME: Regime = Regime { form: EnergyForm::Direct, sparse: false };

/// Most bytes of all planes: enough groups for a large GPU, few enough to leave memory to others.
const MAX_BYTES: usize = 1 << 30;

/// Most queries per batch.
const MAX_QUERIES: usize = 64;

/// Groups per slice that batches are made small enough for, where memory allows.
const GOOD_GROUPS: usize = 64;

/// Most groups per slice: they are the second dimension of a grid.
const MAX_GROUPS: usize = 65_535;

/// Bytes of an `F64x4` of `kernels/common.cu`.
const F64X4_BYTES: usize = 32;

/// What a plane of coefficients is multiplied by, pixel by pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    /// Centred pixels.
    Pixel,
    /// What pixels are above z.
    AboveZ,
    /// The square of that.
    AboveZSquared,
}

/// What pass 1 leaves for further passes, `[probe][window]`.
pub(super) struct PlaneNormaliser {
    /// The least energy.
    pub(super) least: Memory,
    /// The reciprocal of the sum of weights relative to it.
    pub(super) scale: Memory,
}

/// Some of the images of a step.
pub(super) struct Slice {
    pub(super) images: Images,
}

impl Slice {
    pub(super) fn groups(&self) -> usize {
        (self.images.count as usize).div_ceil(GROUP_LEN)
    }

    /// The shards that the slice has a part of.
    fn shards(&self) -> usize {
        let Images { first, count, shard_len, first_shard, .. } = self.images;
        ((first + count - 1) / shard_len - first_shard + 1) as usize
    }
}

/// The planes of a batch, and how they are filled.
pub(super) struct Planes<'a> {
    call: &'a Call<'a>,
    batch: &'a Batch,
    /// Most groups per slice.
    groups: usize,
    /// Two planes of pixels: what is summed, and sums on their way.
    pixels: [Memory; 2],
    /// Energies, then weights.
    pub(super) windows: Memory,
    /// Products with a direction, then tilted weights.
    pub(super) products: Option<Memory>,
}

/// Bytes of a group's planes for a probe.
fn bytes_per_group(call: &Call<'_>, has_products: bool) -> usize {
    let windows = call.components.count * if has_products { 2 } else { 1 };
    (2 * call.bank.plane() + windows) * F64X4_BYTES
}

/// Bytes that planes may take.
fn budget(free: usize) -> usize {
    (free / 4).min(MAX_BYTES)
}

/// Queries per batch, with `free` bytes of memory, where each takes so many bytes besides its planes.
pub(super) fn queries_per_batch(call: &Call<'_>, free: usize, of_query: usize, has_products: bool) -> usize {
    let in_planes = budget(free) / (GOOD_GROUPS * bytes_per_group(call, has_products) * call.mirrors());
    let besides = free / 2 / (of_query + FarValues::bytes_per_query(call.bank) + Batch::bytes_per_query(call, REGIME));
    in_planes.min(besides).clamp(1, MAX_QUERIES)
}

impl<'a> Planes<'a> {
    pub(super) fn new(call: &'a Call<'a>, stream: &Stream, batch: &'a Batch, has_products: bool) -> Result<Self> {
        let free = call.bank.device.context.free_memory()?;
        let fit = budget(free) / (bytes_per_group(call, has_products) * batch.probe_count);
        let groups = fit.clamp(1, call.bank.len().div_ceil(GROUP_LEN).min(MAX_GROUPS));
        let planes = |len: usize, what: &str| Memory::new(stream, batch.probe_count * groups * len * F64X4_BYTES, what);
        let (plane, count) = (call.bank.plane(), call.components.count);
        Ok(Self {
            call,
            batch,
            groups,
            pixels: [planes(plane, "planes of pixels")?, planes(plane, "planes of pixels")?],
            windows: planes(count, "planes of energies")?,
            products: has_products.then(|| planes(count, "planes of products")).transpose()?,
        })
    }

    /// Runs `work` for every slice of the images, in order. Each counts as progress of so much work per probe and image.
    pub(super) fn for_each_slice(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        mut work: impl FnMut(&mut LaunchQueue<'_, '_>, &Slice) -> Result<()>,
    ) -> Result<()> {
        let (call, most) = (self.call, self.groups * GROUP_LEN);
        let image_bytes = call.bank.image_len() * call.bank.pixels.bytes();
        let steps = call.bank.steps(0..call.bank.shards(), most);
        call.for_each_step(queue, &steps, None, |queue, images, _| {
            for start in (0..images.count as usize).step_by(most) {
                let first = images.first + start as i32;
                let slice = Images {
                    pixels: images.pixels + (start * image_bytes) as Address,
                    first,
                    count: (images.count - start as i32).min(most as i32),
                    first_shard: first / images.shard_len,
                    ..*images
                };
                work(queue, &Slice { images: slice })?;
                queue.end_step(self.batch.probe_count * slice.count as usize)?;
            }
            Ok(())
        })
    }

    /// A kernel over planes.
    pub(super) fn kernel(&self, name: &str) -> Result<Kernel> {
        self.call.kernel(KernelSource::Planes, name)
    }

    /// A thread for each of `items`, a row of blocks for each of `rows`, and a layer for each probe.
    pub(super) fn grid(&self, items: usize, rows: usize) -> Grid {
        let Grid { blocks: [blocks, ..], threads, shared_bytes } = Grid::over(items);
        Grid { blocks: [blocks, rows as u32, self.batch.probe_count as u32], threads, shared_bytes }
    }

    /// The same with a row for each probe.
    pub(super) fn grid_of_probes(&self, items: usize) -> Grid {
        let Grid { blocks: [blocks, _, _], .. } = self.grid(items, 1);
        Grid { blocks: [blocks, self.batch.probe_count as u32, 1], ..self.grid(items, 1) }
    }

    /// The same with a row for each shard of a slice.
    pub(super) fn grid_of_shards(&self, items: usize, slice: &Slice) -> Grid {
        self.grid(items, slice.shards())
    }

    /// Queues a kernel with a thread per item, a row of blocks per group of the slice and a layer per probe.
    fn launch(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
        name: &str,
        items: usize,
        args: &[KernelArg<'_>],
    ) -> Result<()> {
        // SAFETY: planes have room for all items, groups and probes; other arrays are as long as the kernels say.
        unsafe { queue.launch(&self.kernel(name)?, self.grid(items, slice.groups()), args) }
    }

    /// The energies of a slice, without what is added to them for priors and images left out.
    pub(super) fn energies(&self, queue: &mut LaunchQueue<'_, '_>, slice: &Slice) -> Result<()> {
        let out = self.pixels[0].address_ref();
        let args: &[_] = kernel_args![&slice.images, &self.batch.probes, out];
        self.launch(queue, slice, "plane_residuals", self.call.bank.plane(), args)?;
        self.sums_on_windows(queue, slice, &self.windows)
    }

    /// The normalised weights of a slice.
    pub(super) fn weights(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
        normaliser: &PlaneNormaliser,
    ) -> Result<()> {
        self.energies(queue, slice)?;
        let (count, windows) = (self.call.components.count, self.call.components.count as i32);
        let (least, scale) = (normaliser.least.address_ref(), normaliser.scale.address_ref());
        let (probes, energies) = (&self.batch.probes, self.windows.address_ref());
        let args: &[_] = kernel_args![&slice.images, probes, &windows, least, scale, energies];
        self.launch(queue, slice, "plane_weights", count, args)
    }

    /// The products of the images of a slice and a direction, `[probe][channel][pixel]`.
    pub(super) fn products(&self, queue: &mut LaunchQueue<'_, '_>, slice: &Slice, direction: &Memory) -> Result<()> {
        let Some(products) = &self.products else { return Ok(()) };
        let out = self.pixels[0].address_ref();
        let args: &[_] = kernel_args![&slice.images, &self.batch.probes, direction.address_ref(), out];
        self.launch(queue, slice, "plane_products", self.call.bank.plane(), args)?;
        self.sums_on_windows(queue, slice, products)
    }

    /// Adds to `sums` `[probe][shard][window]` the products of a slice times its weights.
    pub(super) fn add_means(&self, queue: &mut LaunchQueue<'_, '_>, slice: &Slice, sums: &Memory) -> Result<()> {
        let Some(products) = &self.products else { return Ok(()) };
        let (count, windows) = (self.call.components.count, self.call.components.count as i32);
        let (weights, products, sums) = (self.windows.address_ref(), products.address_ref(), sums.address_ref());
        let args: &[_] = kernel_args![&slice.images, &windows, weights, products, sums];
        // SAFETY: there is a sum for every probe, shard and window.
        unsafe { queue.launch(&self.kernel("plane_means")?, self.grid_of_shards(count, slice), args) }
    }

    /// Turns products into weights times what they are above their means, `[probe][window]`.
    pub(super) fn tilt(&self, queue: &mut LaunchQueue<'_, '_>, slice: &Slice, means: &Memory) -> Result<()> {
        let Some(products) = &self.products else { return Ok(()) };
        let (count, windows) = (self.call.components.count, self.call.components.count as i32);
        let (weights, means, products) = (self.windows.address_ref(), means.address_ref(), products.address_ref());
        let args: &[_] = kernel_args![&windows, weights, means, products];
        self.launch(queue, slice, "plane_tilts", count, args)
    }

    /// Adds to `sums` `[probe][shard][channel][pixel]` what the images of a slice bring under weights of windows.
    pub(super) fn composite(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
        weights: &Memory,
        factor: Factor,
        sums: &Memory,
    ) -> Result<()> {
        let coefficients = self.coefficients(queue, slice, weights)?.address_ref();
        let (less_z, squares) = (i32::from(factor != Factor::Pixel), i32::from(factor == Factor::AboveZSquared));
        let sums = sums.address_ref();
        let args: &[_] = kernel_args![&slice.images, &self.batch.probes, coefficients, &less_z, &squares, sums];
        let grid = self.grid_of_shards(self.call.bank.image_len(), slice);
        // SAFETY: there is a sum for every probe, shard and pixel.
        unsafe { queue.launch(&self.kernel("plane_composites")?, grid, args) }
    }

    /// Memory for the sums of [`Planes::composite`].
    pub(super) fn new_sums(&self, stream: &Stream) -> Result<Memory> {
        Memory::new(stream, self.batch.probe_count * bytes_of_sums(self.call), "sums of pixels")
    }

    /// Those sums over all shards, `[probe][channel][pixel]`.
    pub(super) fn totals(&self, queue: &mut LaunchQueue<'_, '_>, sums: &Memory) -> Result<Vec<f64>> {
        let (len, shards) = (self.call.bank.image_len(), self.call.bank.shards());
        let totals = Memory::new(&queue.stream, self.batch.probe_count * len * 8, "sums of pixels")?;
        let (kernel, grid) = (self.kernel("plane_totals")?, self.grid_of_probes(len));
        let (shards, values) = (shards as i32, len as i32);
        let args: &[_] = kernel_args![sums.address_ref(), &shards, &values, totals.address_ref()];
        // SAFETY: there is a sum for every probe, shard and pixel, and a total for every probe and pixel.
        unsafe { queue.launch(&kernel, grid, args)? };
        queue.wait()?;
        let mut values = vec![0.0; self.batch.probe_count * len];
        totals.read(&mut values, "sums of pixels")?;
        Ok(values)
    }

    /// Sums the first plane of pixels on every window.
    fn sums_on_windows(&self, queue: &mut LaunchQueue<'_, '_>, slice: &Slice, out: &Memory) -> Result<()> {
        let [image, rows, windows] = match &self.call.components.kind {
            DeviceKind::Masks(masks) => return self.sums_on_masks(queue, slice, masks, out),
            DeviceKind::Full | DeviceKind::Square(_) => self.extents(),
        };
        let shapes = &self.call.components.shapes;
        let [pixels, across] = &self.pixels;
        self.sum(queue, slice, (pixels, image), (across, rows), shapes.columns, Along::Row)?;
        self.sum(queue, slice, (across, rows), (out, windows), shapes.rows, Along::Column)
    }

    /// The adjoint: at every pixel the sum of the weights of the windows that hold it.
    fn coefficients(&self, queue: &mut LaunchQueue<'_, '_>, slice: &Slice, weights: &Memory) -> Result<&Memory> {
        let [image, _, windows] = match &self.call.components.kind {
            DeviceKind::Masks(masks) => return self.coefficients_of_masks(queue, slice, masks, weights),
            DeviceKind::Full | DeviceKind::Square(_) => self.extents(),
        };
        let shapes = &self.call.components.shapes;
        let rows = Extent { rows: windows.rows, columns: image.columns };
        let [across, out] = &self.pixels;
        self.sum(queue, slice, (weights, windows), (across, rows), shapes.columns, Along::RowBackwards)?;
        self.sum(queue, slice, (across, rows), (out, image), shapes.rows, Along::ColumnBackwards)?;
        Ok(out)
    }

    /// Of an image, of its rows of windows, and of the windows, where they are rectangles on a grid.
    fn extents(&self) -> [Extent; 3] {
        let plane = self.call.bank.plane();
        let (width, columns) = (self.call.components.width, self.call.components.shapes.grid_columns as usize);
        let extent = |len: usize, columns: usize| Extent { rows: (len / columns) as i32, columns: columns as i32 };
        let image = extent(plane, width);
        [image, Extent { columns: columns as i32, ..image }, extent(self.call.components.count, columns)]
    }

    /// Sums of `span` neighbours.
    fn sum(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
        (from, from_extent): (&Memory, Extent),
        (to, to_extent): (&Memory, Extent),
        span: i32,
        along: Along,
    ) -> Result<()> {
        let down = i32::from(matches!(along, Along::Column | Along::ColumnBackwards));
        let backwards = i32::from(matches!(along, Along::RowBackwards | Along::ColumnBackwards));
        let (from, to) = (from.address_ref(), to.address_ref());
        let args: &[_] = kernel_args![from, &from_extent, to, &to_extent, &span, &down, &backwards];
        self.launch(queue, slice, "plane_sums", (to_extent.rows * to_extent.columns) as usize, args)
    }

    fn sums_on_masks(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
        masks: &MirroredMasks,
        out: &Memory,
    ) -> Result<()> {
        let (plane, queries) = (self.call.bank.plane(), self.batch.queries as i32);
        let [mut table, mut next] = [&self.pixels[0], &self.pixels[1]];
        for level in 0..masks.plain.levels {
            let (in_plane, out) = (plane as i32, out.address_ref());
            let args: &[_] = kernel_args![masks, &queries, &level, &in_plane, table.address_ref(), out];
            self.launch(queue, slice, "plane_pieces", masks.plain.count as usize, args)?;
            if level + 1 < masks.plain.levels {
                let args: &[_] = kernel_args![&level, &in_plane, table.address_ref(), next.address_ref()];
                self.launch(queue, slice, "plane_doubles", plane, args)?;
                std::mem::swap(&mut table, &mut next);
            }
        }
        Ok(())
    }

    fn coefficients_of_masks(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
        masks: &MirroredMasks,
        weights: &Memory,
    ) -> Result<&Memory> {
        let (plane, queries) = (self.call.bank.plane(), self.batch.queries as i32);
        let [mut table, mut upper] = [&self.pixels[0], &self.pixels[1]];
        for level in (0..masks.plain.levels).rev() {
            let (in_plane, weights) = (plane as i32, weights.address_ref());
            let (above, out) = (upper.address_ref(), table.address_ref());
            let args: &[_] = kernel_args![masks, &queries, &level, &in_plane, weights, above, out];
            self.launch(queue, slice, "plane_members", plane, args)?;
            std::mem::swap(&mut table, &mut upper);
        }
        Ok(upper)
    }
}

/// Bytes of the sums of [`Planes::composite`] for a probe.
pub(super) fn bytes_of_sums(call: &Call<'_>) -> usize {
    call.bank.shards() * call.bank.image_len() * 8
}

/// Which neighbours are summed.
#[derive(Debug, Clone, Copy)]
enum Along {
    Row,
    Column,
    RowBackwards,
    ColumnBackwards,
}

#[cfg(test)]
mod tests {
    use super::F64X4_BYTES;

    #[test]
    fn constants_are_those_of_the_kernels() {
        let common = include_str!("kernels/common.cu");
        assert!(common.contains("typedef X4<double> F64x4;") && common.contains("Number of[4];"));
        assert_eq!(F64X4_BYTES, 4 * size_of::<f64>());
    }
}
