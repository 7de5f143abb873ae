//! What kernels are given, laid out as `kernels/*.cu` declare it: a field here is a field there, in the same order.

use std::ffi::c_void;
use std::marker::PhantomData;

/// An address on the device; 0 is null.
pub(super) type Address = u64;

/// `struct Images`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Images {
    pub(super) pixels: Address,
    pub(super) channels: i32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) first: i32,
    pub(super) count: i32,
    pub(super) shard: i32,
    pub(super) first_shard: i32,
    pub(super) shards: i32,
}

/// `struct Probes`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Probes {
    pub(super) values: Address,
    pub(super) exact: Address,
    pub(super) rates: Address,
    pub(super) few: Address,
    pub(super) queries: i32,
    pub(super) views: i32,
    pub(super) expanded: i32,
    pub(super) limit: i32,
    pub(super) cutoff: f32,
}

/// `struct Place`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: i32,
    pub(super) shared: i32,
}

/// `struct Square`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Square {
    pub(super) side: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
}

/// `struct SquareSpace`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct SquareSpace {
    pub(super) slabs: Address,
    pub(super) slab: u64,
    pub(super) warp: i32,
    pub(super) ring: Place,
    pub(super) ring2: Place,
    pub(super) rows: Place,
    pub(super) state: Place,
}

/// `struct Masks`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Masks {
    pub(super) starts: Address,
    pub(super) pieces: Address,
    pub(super) owners: Address,
    pub(super) members: Address,
    pub(super) levels: i32,
    pub(super) count: i32,
}

/// `struct MaskViews`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct MaskViews {
    pub(super) plain: Masks,
    pub(super) mirrored: Masks,
}

/// `struct MaskSpace`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct MaskSpace {
    pub(super) slabs: Address,
    pub(super) slab: u64,
    pub(super) tables: Place,
    pub(super) windows: Place,
    pub(super) state: Place,
}

/// `struct Normaliser`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Normaliser {
    pub(super) least: Address,
    pub(super) scale: Address,
}

/// `struct Candidates`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates {
    pub(super) windows: Address,
    pub(super) images: Address,
    pub(super) energies: Address,
    pub(super) counts: Address,
}

impl Candidates {
    /// No list at all.
    pub(super) const NONE: Self = Self { windows: 0, images: 0, energies: 0, counts: 0 };
}

/// `struct Shapes`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Shapes {
    pub(super) starts: Address,
    pub(super) levels: Address,
    pub(super) plain: Address,
    pub(super) mirrored: Address,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) grid: i32,
}

/// `struct Units`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Units {
    pub(super) unit: f64,
    pub(super) shift: f64,
    pub(super) largest_z: f64,
}

/// What may be given to a kernel: numbers and the structures above, as they lie in memory.
pub(super) trait Argument: Copy {}
impl Argument for i32 {}
impl Argument for f64 {}
impl Argument for Address {}
impl Argument for Images {}
impl Argument for Probes {}
impl Argument for Square {}
impl Argument for SquareSpace {}
impl Argument for MaskViews {}
impl Argument for MaskSpace {}
impl Argument for Normaliser {}
impl Argument for Candidates {}
impl Argument for Shapes {}
impl Argument for Units {}

/// Where an argument lies, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent<'a> {
    place: *const c_void,
    lent: PhantomData<&'a ()>,
}

impl<'a> Lent<'a> {
    pub(super) fn new<A: Argument>(argument: &'a A) -> Self {
        Self { place: std::ptr::from_ref(argument).cast(), lent: PhantomData }
    }

    /// The place, as the driver takes it. It is only read from.
    pub(super) fn place(self) -> *mut c_void {
        self.place.cast_mut()
    }
}

/// Some arguments, as `launch` takes them.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$($crate::cuda::arguments::Lent::new($argument)),*] };
}
pub(super) use arguments;
