"""Vector instructions for the window pooling kernel that Numba does not generate by itself, in LLVM's language."""

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 32  # channels that are worked on at once
SIDE = 16  # of the squares that are transposed
LINE = 64  # bytes of a cache line
_SMALL = 4  # rows and columns of a union that there is code of its own for
_MASK = ir.VectorType(ir.IntType(32), SIDE)


@intrinsic
def union(_typing, source, start, rows, row_step, columns, tall, wide, target, at):  # type: ignore[no-untyped-def]
    """Maximum, lane by lane, of `rows` x `columns` runs of `LANES` numbers of `source`, put at `target[at:]`.

    The first run starts at `start`; those of a row lie side by side, the rows `row_step` numbers apart.  `tall` and
    `wide` are bounds of `rows` and `columns`, to be the same from call to call: for small ones there is code without a
    branch that reads so many runs, the last ones twice where there are fewer.  Loops of one to four turns, now this many
    and now that, would be mispredicted, which costs more than the maxima.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, rows, row_step, columns, tall, wide, _, at = args
        run = _pointers(context, builder, signature.args[0], args[0], LANES)
        goal = _pointers(context, builder, signature.args[7], args[7], LANES)
        align = context.get_abi_sizeof(context.get_value_type(source.dtype))
        word = start.type

        def read(row: Any, column: Any) -> Any:
            first = builder.add(start, builder.mul(row, row_step))
            return builder.load(run(builder.add(first, builder.mul(column, word(LANES)))), align=align)

        def larger(old: Any, new: Any) -> Any:
            # No NaN and no negative zero comes out of a ReLU; with them it could not be one instruction.
            if isinstance(source.dtype, types.Float):
                above = builder.fcmp_ordered(">", old, new, flags=("nnan", "nsz"))
            else:
                above = builder.icmp_signed(">", old, new)
            return builder.select(above, old, new)

        def turns(count: Any, most: int) -> list[Any]:
            """0, 1 ... `most` - 1, or `count` - 1 where that is less."""
            last = builder.sub(count, word(1))
            return [
                builder.select(builder.icmp_signed("<", word(k), last), word(k), last) for k in range(most)
            ]

        any_size, end = (builder.append_basic_block(name) for name in ("any_size", "end"))
        is_small = builder.and_(*(builder.icmp_signed("<=", bound, word(_SMALL)) for bound in (tall, wide)))
        case = builder.add(builder.mul(tall, word(_SMALL)), wide)
        small = builder.switch(builder.select(is_small, case, word(0)), any_size)
        for height in range(1, _SMALL + 1):
            for width in range(1, _SMALL + 1):
                block = builder.append_basic_block(f"small_{height}_{width}")
                small.add_case(word(height * _SMALL + width), block)
                builder.position_at_end(block)
                rows_read, columns_read = turns(rows, height), turns(columns, width)
                runs = (read(row, column) for row in rows_read for column in columns_read)
                builder.store(reduce(larger, runs), goal(at), align=align)
                builder.branch(end)
        builder.position_at_end(any_size)
        best = cgutils.alloca_once_value(builder, read(word(0), word(0)))
        with cgutils.for_range(builder, rows) as row, cgutils.for_range(builder, columns) as column:
            builder.store(larger(builder.load(best), read(row.index, column.index)), best)
        builder.store(builder.load(best), goal(at), align=align)
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(source, *(types.intp,) * 6, target, types.intp), generate


@intrinsic
def transpose(_typing, source, start, target, at, step):  # type: ignore[no-untyped-def]
    """Transpose `SIDE` x `SIDE` numbers, from rows `LANES` apart in `source` to rows `step` apart in `target`.

    The rows are written in their order, so that with a step below `SIDE` the later row stays.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, _, at, step = args
        run = _pointers(context, builder, signature.args[0], args[0], SIDE)
        goal = _pointers(context, builder, signature.args[2], args[2], SIDE)
        align = context.get_abi_sizeof(context.get_value_type(source.dtype))
        rows = [
            builder.load(run(builder.add(start, start.type(i * LANES))), align=align) for i in range(SIDE)
        ]
        # Four perfect shuffles of the rows, each of which interleaves the first half with the second.
        low, high = (
            ir.Constant(_MASK, [first + i // 2 + i % 2 * SIDE for i in range(SIDE)])
            for first in (0, SIDE // 2)
        )
        for _ in range(4):
            pairs = list(zip(rows[: SIDE // 2], rows[SIDE // 2 :], strict=True))
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
        for i, row in enumerate(rows):
            builder.store(row, goal(builder.add(at, builder.mul(step, step.type(i)))), align=align)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), generate


@intrinsic
def stream(_typing, source, target, at, count):  # type: ignore[no-untyped-def]
    """Copy `count * LANES` numbers to `target[at:]`, which starts a cache line, past the caches.

    What is written thus is not read first.  The lock by which the caller gets Python back makes it seen by all.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, at, count = args
        run = _pointers(context, builder, signature.args[0], args[0], LANES)
        goal = _pointers(context, builder, signature.args[1], args[1], LANES)
        align = context.get_abi_sizeof(context.get_value_type(source.dtype))
        past_the_caches = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, count) as loop:
            place = builder.mul(loop.index, loop.index.type(LANES))
            numbers = builder.load(run(place), align=align)
            store = builder.store(numbers, goal(builder.add(at, place)), align=LINE)
            store.set_metadata("nontemporal", past_the_caches)
        return context.get_dummy_value()

    return types.void(source, target, types.intp, types.intp), generate


def _pointers(context: Any, builder: Any, kind: Any, array: Any, lanes: int) -> Callable[[Any], Any]:
    """From an index into a one-dimensional array to the pointer to `lanes` numbers from there on."""
    data = context.make_array(kind)(context, builder, array).data
    pointer = ir.VectorType(context.get_value_type(kind.dtype), lanes).as_pointer()
    return lambda index: builder.bitcast(builder.gep(data, [index]), pointer)
