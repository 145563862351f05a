import java.util.ArrayList;
import java.util.List;
import java.util.function.*;

public class Main {
    static int apply(IntBinaryOperator f, int a, int b) { return f.applyAsInt(a, b); }
    private static int twice(int n) { return 2 * n; }

    public static void main(String[] args) {
        int base = 10;
        IntUnaryOperator plus = x -> x + base;
        IntBinaryOperator times = (a, b) -> { int r = a * b; return r; };
        Function<Integer, Function<Integer, Integer>> curried = a -> b -> a - b;
        List<Supplier<Integer>> all = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            int kept = i;
            all.add(() -> kept * kept);
        }
        int total = 0;
        for (Supplier<Integer> s : all) total += s.get();
        IntUnaryOperator reference = Main::twice;
        System.out.println(plus.applyAsInt(5) + " " + apply(times, 3, 4) + " " + total);
        System.out.println(curried.apply(9).apply(4) + " " + reference.applyAsInt(21));
        Runnable r = () -> System.out.println("run " + base);
        r.run();
    }
}
