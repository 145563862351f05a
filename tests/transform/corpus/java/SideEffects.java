public class Main {
    static int calls = 0;
    static boolean step(boolean r) { calls++; System.out.print(r ? "t" : "f"); return r; }

    static int conditions(boolean a, boolean b) {
        if (step(a) && step(b)) return 1;
        else if (step(!a) || step(b)) return 2;
        return 3;
    }

    static int loops() {
        int n = 0;
        for (step(true); step(n < 2); step(false)) { n++; }
        while (step(n > 0)) n--;
        return n;
    }

    public static void main(String[] args) {
        for (int i = 0; i < 4; i++) System.out.println(conditions(i % 2 == 0, i > 1));
        System.out.println(loops() + " " + calls);
    }
}
