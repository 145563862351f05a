public class Main {
    static int table(int rows, int columns) {
        int total = 0;
        for (int i = 0; i < rows; i++) {
            for (int j = 0; j < columns; j++) {
                if (i == j) continue;
                total += i * 10 + j;
            }
        }
        return total;
    }

    static int labels(int n) {
        int hits = 0;
        outer:
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < n; j++) {
                if (j > i) continue outer;
                if (i * j > 20) break outer;
                hits++;
            }
        }
        return hits;
    }

    static int forever(int n) {
        for (;;) {
            n += 3;
            if (n > 20) break;
        }
        while (true) {
            if (n % 10 == 0) return n;
            n++;
        }
    }

    static int several(int n) {
        int steps = 0;
        for (int i = 0, j = n; i < j; i++, j--) steps += j;
        int k;
        for (k = 0; k < n; k += 2) { }
        do { k--; } while (k > 5);
        return steps * 100 + k;
    }

    static int returns(int n) {
        for (int i = 0; i < n; i++) { return i + 1; }
        for (int i = 0; ; i++) { if (i > n) return i; else n--; }
    }

    public static void main(String[] args) {
        System.out.println(table(3, 4) + " " + labels(8) + " " + forever(1));
        System.out.println(several(9) + " " + returns(4) + " " + returns(-3));
    }
}
