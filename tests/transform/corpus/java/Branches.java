public class Main {
    static String grade(int p) {
        if (p >= 90) return "A";
        else if (p >= 75) return "B";
        else if (p >= 50) { if (p == 60) return "C*"; return "C"; }
        else return "F";
    }

    static int dangle(boolean a, boolean b) {
        int r = 0;
        if (a)
            if (b) r = 1;
            else r = 2;
        if (!a) if (!b) r += 100; else r += 200; else r += 300;
        return r;
    }

    static int definite(int n) {
        int x;
        if (n > 3) x = 1;
        else x = 2;
        final int y;
        if (!(n == 2)) { y = 5; } else { y = 6; }
        return x * 10 + y;
    }

    static String pattern(Object o) {
        if (o instanceof String s) return s + s.length();
        if (!(o instanceof Integer i)) return "other";
        return "int " + (i + 1);
    }

    public static void main(String[] args) {
        for (int i = 0; i <= 100; i += 15) System.out.print(grade(i));
        System.out.println(dangle(true, true) + dangle(true, false) + dangle(false, true));
        System.out.println(definite(1) + " " + definite(2) + " " + definite(9));
        System.out.println(pattern("ab") + pattern(4) + pattern(2.5));
    }
}
