"""How many complex solutions of each rank the equilibrium equations have, by a Gröbner basis over a prime field.

Nothing is shared with the package: random symmetric X and Y modulo a prime, S = P Ŝ Pᵀ with P = (I; Z), the ideal of
Pᵀ M(S) with det Ŝ · det(XS + I) inverted, and the dimension of the quotient, all by Singular (Debian: singular-ui).
`python tests/equilibria/counting.py M RANK [PRIME SEED]` counts by hand; m = 4 takes a minute or two.
"""

import random
import subprocess
import sys

PROGRAM = """
ring r = {prime}, ({names}, u), dp;
matrix X[{m}][{m}] = {x};
matrix Y[{m}][{m}] = {y};
matrix H[{k}][{k}] = {hat};
matrix P[{m}][{k}] = {p};
matrix S = P * H * transpose(P);
matrix L = X * S + matrix(freemodule({m}), {m}, {m});
matrix M = L * transpose(L) - transpose(Y) * S * Y;
ideal i = ideal(transpose(P) * M), u * det(H) * det(L) - 1;
ideal g = slimgb(i);
print(dim(g));
print(vdim(g));
quit;
"""


def count(m: int, rank: int, prime: int = 32003, seed: int = 1, timeout: float = 3600) -> int:
    """The number of solutions with multiplicity, for X and Y drawn from this seed."""
    draw = random.Random(seed)
    x = [[0] * m for _ in range(m)]
    for i in range(m):
        for j in range(i, m):
            x[i][j] = x[j][i] = draw.randrange(prime)
    y = [[draw.randrange(prime) for _ in range(m)] for _ in range(m)]
    hat = [[f"s{min(i, j)}{max(i, j)}" for j in range(rank)] for i in range(rank)]
    below = [[f"z{i}{j}" for j in range(rank)] for i in range(m - rank)]
    p = [[int(i == j) for j in range(rank)] for i in range(rank)] + below
    names = [hat[i][j] for i in range(rank) for j in range(i, rank)] + [name for row in below for name in row]
    flat = lambda rows: ", ".join(str(entry) for row in rows for entry in row)  # noqa: E731
    text = PROGRAM.format(
        prime=prime, names=", ".join(names), m=m, k=rank, x=flat(x), y=flat(y), hat=flat(hat), p=flat(p)
    )
    done = subprocess.run(["Singular", "-q"], input=text, capture_output=True, text=True, timeout=timeout, check=True)
    dimension, number = (int(word) for word in done.stdout.split()[-2:])
    if dimension != 0:
        raise ArithmeticError(f"the solutions are not isolated: dimension {dimension}, {done.stdout[-200:]}")
    return number


if __name__ == "__main__":
    print(count(*(int(word) for word in sys.argv[1:])))
