public class Main {
    enum Colour { RED, GREEN, BLUE }

    static int weigh(int x) {
        int w = 0;
        switch (x) {
            case 3: w += 3;
            case 2: w += 2;
            case 1: w += 1; break;
            default: w = -1;
        }
        return w;
    }

    static String name(Colour c) {
        return switch (c) {
            case RED -> "red";
            case GREEN -> { String g = "gr"; yield g + "een"; }
            case BLUE -> "blue";
        };
    }

    static int inLoop(int n) {
        int r = 0;
        for (int i = 0; i < n; i++) {
            switch (i % 4) {
                case 0: continue;
                case 1: r += 100; break;
                default: r += i;
            }
            r += 1;
        }
        return r;
    }

    public static void main(String[] args) {
        for (int i = 0; i < 5; i++) System.out.print(weigh(i) + " ");
        for (Colour c : Colour.values()) System.out.print(name(c) + c.ordinal() + " ");
        System.out.println(inLoop(10));
    }
}
