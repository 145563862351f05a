public class Main {
    static final int LIMIT = 5;
    static int seen;
    static { seen = LIMIT * 2; }
    int id;
    { id = ++seen; }

    private int helper(int n) { return id + n; }
    private static int pick(int n) { return n; }
    private static int pick(String s) { return s.length(); }
    private static int pick(int a, int b) { return a * b; }

    int run(int n) {
        int r = helper(n);
        synchronized (this) { r++; }
        assert r > 0 : "positive";
        return r;
    }

    public static void main(String[] args) {
        Main first = new Main(), second = new Main();
        System.out.println(first.run(1) + " " + second.run(2) + " " + seen);
        System.out.println(pick(3) + pick("four") + pick(5, 6));
        class Local { int twice(int n) { return n * 2 + LIMIT; } }
        System.out.println(new Local().twice(4));
    }
}
